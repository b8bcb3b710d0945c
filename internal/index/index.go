// Package index finds keys by their digest; it never sees a token, and never decides.
package index

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/policy"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// ID names an object that a key is declared by.
type ID struct {
	Namespace, Name string
}

// Entry is what the index is told of an object that has a digest.
type Entry struct {
	ID
	UID string
	// Created is when the object was. It tells the elder of two with one digest.
	Created time.Time

	Digest   token.Digest
	Deadline expiry.Deadline
	Networks policy.Networks
	// Roles are those that the object names itself. The index may keep the slice, and the texts that the names are parts of.
	Roles []string
}

// Options of an Index. The zero value is good.
type Options struct {
	// MaxStaleness is the greatest age of a view that is still answered from; zero means any.
	MaxStaleness time.Duration
}

// Index holds keys by digest. Any number may read it while it is written to.
type Index struct {
	shards [shardCount]shard

	mu      sync.Mutex // of all that follows, and of writes to the shards
	roles   roleSets
	claims  map[token.Digest]*claim // of digests that more than one object has, or had
	sources []*Source
	feeds   []*feed

	unloaded     atomic.Int64 // sources that have not been loaded once
	size         atomic.Int64
	duplicates   atomic.Int64
	maxStaleness time.Duration
}

// Digests are uniform, so their first byte picks a shard.
const shardCount = 256

type shard struct {
	mu   sync.RWMutex
	keys map[token.Digest]*verify.Key
}

// New returns an empty index. It is ready once it has a source, and all of its sources have been loaded.
func New(options Options) *Index {
	x := &Index{roles: newRoleSets(), claims: map[token.Digest]*claim{}, maxStaleness: options.MaxStaleness}
	for i := range x.shards {
		x.shards[i].keys = map[token.Digest]*verify.Key{}
	}
	return x
}

// Find implements verify.Keys.
func (x *Index) Find(digest token.Digest) *verify.Key {
	s := &x.shards[digest[0]]
	s.mu.RLock()
	key := s.keys[digest]
	s.mu.RUnlock()
	return key
}

// Ready implements verify.Keys.
func (x *Index) Ready(now time.Time) bool {
	if !x.Loaded() {
		return false
	}
	return x.maxStaleness == 0 || x.Age(now) <= x.maxStaleness
}

// Loaded tells whether every source has been loaded once.
func (x *Index) Loaded() bool { return x.unloaded.Load() == 0 && len(x.feeds) > 0 }

// Age is how long ago the source that has been silent longest was heard of; zero if it has never been.
func (x *Index) Age(now time.Time) time.Duration {
	var age time.Duration
	for _, f := range x.feeds {
		if heard := f.heard.Load(); heard != nil {
			age = max(age, now.Sub(*heard))
		}
	}
	return age
}

// Size is how many keys can be found.
func (x *Index) Size() int { return int(x.size.Load()) }

// Duplicates is how many digests are refused since more than one object has them, or had.
func (x *Index) Duplicates() int { return int(x.duplicates.Load()) }

// feed is what an index is told by, of keys or of roles.
type feed struct {
	index  *Index
	loaded bool
	heard  atomic.Pointer[time.Time] // with its monotonic reading: a clock that is set must not make the view older or younger
}

// add adds a feed. All are added before anybody reads.
func (x *Index) add(f *feed) {
	f.index = x
	x.feeds = append(x.feeds, f)
	x.unloaded.Add(1)
}

// Heard notes that the feed's view is that of a moment.
func (f *feed) Heard(now time.Time) { f.heard.Store(&now) }

// markLoaded is called once all that there is has been told.
func (f *feed) markLoaded() {
	if !f.loaded {
		f.loaded = true
		f.index.unloaded.Add(-1)
	}
}

// Catalogue is what the index is told by of what roles include. Its methods must not be called by two at once.
type Catalogue struct {
	feed
}

// Catalogue adds the one source of roles. It is added before anybody reads; without it, no role includes another.
func (x *Index) Catalogue() *Catalogue {
	c := &Catalogue{}
	x.add(&c.feed)
	return c
}

// Replace takes the catalogue as it is now. From then on it counts as loaded.
func (c *Catalogue) Replace(catalogue *policy.Catalogue) {
	c.index.mu.Lock()
	stale := c.index.roles.turnTo(catalogue)
	c.index.mu.Unlock()
	// Without the lock: where there are many sets this takes long, and revocations must not wait for it.
	for _, roles := range stale {
		roles.Include(catalogue)
	}
	c.markLoaded()
}

// Source is one place that objects come from, such as the watch of a namespace. Its methods must not be called by two at
// once, and no two sources may tell of the same object.
type Source struct {
	feed
	entries map[ID]*entry
}

// entry is an object as the index remembers it. The garbage collector looks at all that is remembered of every key time and again,
// so it is in as few pieces as can be: this one and a text, and the sets of roles that keys share.
type entry struct {
	key     verify.Key
	digest  token.Digest
	created int64 // Unix seconds, as fine as Kubernetes tells it
}

func newEntry(e *Entry, roles *policy.Roles) *entry {
	text := e.Namespace + e.Name + e.UID
	inName, inUID := len(e.Namespace), len(e.Namespace)+len(e.Name)
	return &entry{digest: e.Digest, created: e.Created.Unix(), key: verify.Key{
		Namespace: text[:inName], Name: text[inName:inUID], UID: text[inUID:],
		Deadline: e.Deadline, Networks: e.Networks, Roles: roles,
	}}
}

func (e *entry) id() ID { return ID{Namespace: e.key.Namespace, Name: e.key.Name} }

// Source adds a source of keys. All are added before anybody reads.
func (x *Index) Source() *Source {
	s := &Source{entries: map[ID]*entry{}}
	x.add(&s.feed)
	x.sources = append(x.sources, s)
	return s
}

// Put takes an object as it is now.
func (s *Source) Put(e Entry) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.put(e)
}

// Remove forgets an object.
func (s *Source) Remove(id ID) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.remove(id)
}

// Replace takes all objects that there are, and forgets the others. From then on the source counts as loaded.
func (s *Source) Replace(all []Entry) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	exists := make(map[ID]struct{}, len(all))
	for i := range all {
		exists[all[i].ID] = struct{}{}
	}
	// Revocations first: they must not wait for what is new.
	for id := range s.entries {
		if _, ok := exists[id]; !ok {
			s.remove(id)
		}
	}
	for i := range all {
		s.put(all[i])
	}
	s.markLoaded()
}

func (s *Source) put(e Entry) {
	x := s.index
	old := s.entries[e.ID]
	added := newEntry(&e, x.roles.acquire(e.Roles))
	delete(s.entries, e.ID) // and with it the text of the old name
	s.entries[added.id()] = added
	if old != nil && old.digest == e.Digest && old.key.UID == e.UID {
		x.release(old)
		if c := x.claims[e.Digest]; c != nil {
			c.replace(old, added)
			x.settle(e.Digest, c)
			return
		}
		x.set(e.Digest, &added.key)
		return
	}
	if old != nil {
		x.disown(old)
	}
	x.own(added)
}

func (s *Source) remove(id ID) {
	if old := s.entries[id]; old != nil {
		delete(s.entries, id)
		s.index.disown(old)
	}
}

func (x *Index) release(e *entry) { x.roles.release(e.key.Roles) }

// own gives a digest to an entry, if it is the only one that claims it.
func (x *Index) own(e *entry) {
	c := x.claims[e.digest]
	if c == nil {
		first := x.Find(e.digest)
		if first == nil {
			x.set(e.digest, &e.key)
			return
		}
		c = newClaim(x.entryOf(first))
		x.claims[e.digest] = c
		x.duplicates.Store(int64(len(x.claims)))
	}
	c.add(e)
	x.settle(e.digest, c)
}

// disown takes a digest from an entry that is gone, or has another digest now.
func (x *Index) disown(e *entry) {
	x.release(e)
	c := x.claims[e.digest]
	if c == nil {
		x.set(e.digest, nil)
		return
	}
	c.drop(e)
	x.settle(e.digest, c)
}

// settle makes the keys agree with a contested digest's claim.
func (x *Index) settle(digest token.Digest, c *claim) {
	winner, over := c.winner()
	if over {
		delete(x.claims, digest)
		x.duplicates.Store(int64(len(x.claims)))
	}
	if winner == nil {
		x.set(digest, nil)
		return
	}
	x.set(digest, &winner.key)
}

func (x *Index) set(digest token.Digest, key *verify.Key) {
	s := &x.shards[digest[0]]
	s.mu.Lock()
	before := len(s.keys)
	if key == nil {
		delete(s.keys, digest)
	} else {
		s.keys[digest] = key
	}
	x.size.Add(int64(len(s.keys) - before))
	s.mu.Unlock()
}

// entryOf is the entry that a key belongs to.
func (x *Index) entryOf(key *verify.Key) *entry {
	id := ID{Namespace: key.Namespace, Name: key.Name}
	for _, s := range x.sources {
		if e := s.entries[id]; e != nil && &e.key == key {
			return e
		}
	}
	return nil
}
