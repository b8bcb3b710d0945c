// Package index finds keys by their digest; it never sees a token, never decides, reads no clock, and must not come to know where keys come
// from or who asks.
package index

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// ID names an object that a key is declared by.
type ID struct {
	Namespace, Name string
}

// Credential is a digest that a key is found by.
type Credential struct {
	Digest token.Digest
	// Deadline is the moment from which the key is dead to whoever comes with this digest: that of the key, or an earlier one.
	Deadline expiry.Deadline
}

// Entry is what the index is told of an object.
type Entry struct {
	ID
	UID string
	// Created is when the object was. It tells the elder of two with one digest.
	Created time.Time

	// Credentials are what the key is found by; none for an object that has no token. Of two with one digest the first counts. The index
	// keeps no part of the slice.
	Credentials []Credential
	// Suspended says that every credential is refused for now.
	Suspended bool
	// Networks are where the key may be used from. The index may keep them.
	Networks access.Networks
	// Roles are those that the object names itself. The index may keep the slice, and the texts that the names are parts of.
	Roles []string
}

// Options of an Index. The zero value is good.
type Options struct {
	// MaxStaleness is how old what a source has told may be and still be answered from; zero means any age.
	MaxStaleness time.Duration
}

// Index holds keys by digest. Any number may read it while it is written to.
type Index struct {
	shards [shardCount]shard

	mu     sync.Mutex // of the roles and claims, and of writes to the shards
	roles  roleSets
	claims map[token.Digest]*claim // of digests that more than one object has, or had

	// All feeds are added before anybody reads.
	sources   []*Source
	catalogue *Catalogue // nil if there is none

	unsettled    atomic.Int64 // feeds that have neither been loaded nor refused
	size         atomic.Int64
	duplicates   atomic.Int64
	maxStaleness time.Duration
	// born is what moments are counted from, with its monotonic reading: a clock that is set must make no view older or younger.
	born time.Time
}

// Digests are uniform, so their first byte picks a shard.
const shardCount = 256

type shard struct {
	mu   sync.RWMutex
	keys map[token.Digest]*entry
}

// New returns an empty index, made at a moment. Every source is as old as that until it is heard of.
func New(now time.Time, options Options) *Index {
	x := &Index{roles: newRoleSets(), claims: map[token.Digest]*claim{}, maxStaleness: options.MaxStaleness, born: now}
	for i := range x.shards {
		x.shards[i].keys = map[token.Digest]*entry{}
	}
	return x
}

// Find implements verify.Keys. A key is fresh as long as the catalogue and its own source are, whatever becomes of other sources.
func (x *Index) Find(digest token.Digest, now time.Time) (key *verify.Key, fresh bool) {
	e := x.find(digest)
	if e == nil {
		return nil, false
	}
	at := x.at(now)
	return &e.key, x.settled(at) && e.source.fresh(at)
}

func (x *Index) find(digest token.Digest) *entry {
	s := &x.shards[digest[0]]
	s.mu.RLock()
	e := s.keys[digest]
	s.mu.RUnlock()
	return e
}

// Ready implements verify.Keys. It wants every source to have been loaded or refused once, and one of them to be fresh: where all are
// silent, an unknown token may well be that of a key that nobody has told of yet. What roles include is about every key, so that the
// catalogue must be fresh, too.
func (x *Index) Ready(now time.Time) bool {
	at := x.at(now)
	return x.settled(at) && slices.ContainsFunc(x.sources, func(s *Source) bool { return s.fresh(at) })
}

// at is a moment as the feeds note it.
func (x *Index) at(now time.Time) time.Duration { return now.Sub(x.born) }

// settled tells whether all is known that every key depends on.
func (x *Index) settled(at time.Duration) bool {
	return x.unsettled.Load() == 0 && (x.catalogue == nil || x.catalogue.fresh(at))
}

// Loaded tells whether the index has been ready once: every source was loaded or refused, one of them and the catalogue were loaded.
func (x *Index) Loaded() bool {
	if x.unsettled.Load() != 0 || x.catalogue != nil && !x.catalogue.loaded.Load() {
		return false
	}
	return slices.ContainsFunc(x.sources, func(s *Source) bool { return s.loaded.Load() })
}

// Size is how many keys can be found.
func (x *Index) Size() int { return int(x.size.Load()) }

// Duplicates is how many digests are refused since more than one object has them, or had.
func (x *Index) Duplicates() int { return int(x.duplicates.Load()) }

// feed is what an index is told by, of keys or of roles.
type feed struct {
	index   *Index
	settled bool // loaded or refused
	loaded  atomic.Bool
	heard   atomic.Int64 // when, as a time.Duration since the index was made
}

// add adds a feed.
func (x *Index) add(f *feed) {
	f.index = x
	x.unsettled.Add(1)
}

// Heard notes that the feed's view is that of a moment.
func (f *feed) Heard(now time.Time) { f.heard.Store(int64(f.index.at(now))) }

// Age is how long ago the feed was heard of. One that never was is as old as the index.
func (f *feed) Age(now time.Time) time.Duration {
	return f.index.at(now) - time.Duration(f.heard.Load())
}

// fresh tells whether what the feed has told is recent enough to be answered from.
func (f *feed) fresh(at time.Duration) bool {
	return f.loaded.Load() && (f.index.maxStaleness == 0 || at-time.Duration(f.heard.Load()) <= f.index.maxStaleness)
}

// settle is called once it is known whether the feed can be read.
func (f *feed) settle() {
	if !f.settled {
		f.settled = true
		f.index.unsettled.Add(-1)
	}
}

// markLoaded is called once all that there is has been told.
func (f *feed) markLoaded() {
	f.loaded.Store(true)
	f.settle()
}

// Catalogue is what the index is told by of what roles include. Its methods must not be called by two at once.
type Catalogue struct {
	feed
}

// Catalogue adds the one source of roles. It is added before anybody reads; without it, no role includes another.
func (x *Index) Catalogue() *Catalogue {
	x.catalogue = &Catalogue{}
	x.add(&x.catalogue.feed)
	return x.catalogue
}

// Replace takes the catalogue as it is now. From then on it counts as loaded.
func (c *Catalogue) Replace(catalogue *access.Catalogue) {
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
	entries map[ID]*entry // the first of each object
}

// entry is a credential of an object as the index remembers it. The garbage collector looks at all that is remembered of every key time and
// again, so it is in as few pieces as can be: this one and a text, which the entries of an object share, and the sets of roles that keys
// share. Readers have it without a lock: but for next, which they don't look at, it never changes.
type entry struct {
	key     verify.Key
	source  *Source
	digest  token.Digest
	created int64  // Unix seconds, as fine as Kubernetes tells it
	next    *entry // of the same object; guarded by the index's mutex
}

func (e *entry) id() ID { return ID{Namespace: e.key.Namespace, Name: e.key.Name} }

// of is the one of an object's entries that has a digest; nil if none has.
func (e *entry) of(digest token.Digest) *entry {
	for e != nil && e.digest != digest {
		e = e.next
	}
	return e
}

// Source adds a source of keys. All are added before anybody reads.
func (x *Index) Source() *Source {
	s := &Source{entries: map[ID]*entry{}}
	x.add(&s.feed)
	x.sources = append(x.sources, s)
	return s
}

// Refused notes that the API server lets nobody read what the source is of. The index then waits for it no longer: what else it knows is
// answered from, and what this source would tell is unknown until it is loaded.
func (s *Source) Refused() { s.settle() }

// Put takes an object as it is now. A digest that stays is found throughout. It gives the same verify.Key as before, unless
// something has changed that a decision depends on.
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
	if len(e.Credentials) == 0 {
		s.remove(e.ID)
		return
	}
	x, old := s.index, s.entries[e.ID]
	kept := old
	if old != nil && old.key.UID != e.UID {
		kept = nil // another object of the same name
	}
	// Revocations first.
	for o := old; o != nil; o = o.next {
		if kept == nil || !e.has(o.digest) {
			x.disown(o)
		}
	}
	key, created := newKey(&e, kept, x.roles.acquire(e.Roles)), e.Created.Unix()
	unchanged := kept != nil && kept.created == created && kept.key.Roles == key.Roles && kept.key.Suspended == key.Suspended &&
		kept.key.Networks.Equal(key.Networks)
	var few [4]*entry
	entries := few[:0]
	for i, c := range e.Credentials {
		if e.first(c.Digest) != i {
			continue
		}
		before := kept.of(c.Digest)
		if before != nil && unchanged && before.key.Deadline == c.Deadline {
			entries = append(entries, before)
			continue
		}
		key.Deadline = c.Deadline
		added := &entry{key: key, source: s, digest: c.Digest, created: created}
		if before != nil {
			x.replace(before, added)
		} else {
			x.own(added)
		}
		entries = append(entries, added)
	}
	link(entries)
	if old != nil {
		x.roles.release(old.key.Roles)
	}
	if kept == nil {
		delete(s.entries, e.ID) // and with it the text of the old name
	}
	s.entries[entries[0].id()] = entries[0]
}

// newKey is what is known of an object but for a deadline. It shares the text of an entry that the object has already, if it has one.
func newKey(e *Entry, kept *entry, roles *access.Roles) verify.Key {
	key := verify.Key{Suspended: e.Suspended, Networks: e.Networks, Roles: roles}
	if kept != nil {
		key.Namespace, key.Name, key.UID = kept.key.Namespace, kept.key.Name, kept.key.UID
		return key
	}
	text := e.Namespace + e.Name + e.UID
	inName, inUID := len(e.Namespace), len(e.Namespace)+len(e.Name)
	key.Namespace, key.Name, key.UID = text[:inName], text[inName:inUID], text[inUID:]
	return key
}

// link makes a chain of the entries of an object.
func link(entries []*entry) {
	var next *entry
	for _, e := range slices.Backward(entries) {
		e.next, next = next, e
	}
}

// first is where the first of the credentials with a digest stands; less than 0 if none has it.
func (e *Entry) first(digest token.Digest) int {
	return slices.IndexFunc(e.Credentials, func(c Credential) bool { return c.Digest == digest })
}

func (e *Entry) has(digest token.Digest) bool { return e.first(digest) >= 0 }

func (s *Source) remove(id ID) {
	old := s.entries[id]
	if old == nil {
		return
	}
	delete(s.entries, id)
	for o := old; o != nil; o = o.next {
		s.index.disown(o)
	}
	s.index.roles.release(old.key.Roles)
}

// replace gives the digest of an entry to one that says something else of the same object, without a moment in between.
func (x *Index) replace(old, e *entry) {
	c := x.claims[e.digest]
	if c == nil {
		x.set(e.digest, e)
		return
	}
	c.replace(old, e)
	x.settle(e.digest, c)
}

// own gives a digest to an entry, if it is the only one that claims it.
func (x *Index) own(e *entry) {
	c := x.claims[e.digest]
	if c == nil {
		first := x.find(e.digest)
		if first == nil {
			x.set(e.digest, e)
			return
		}
		c = newClaim(first)
		x.claims[e.digest] = c
		x.duplicates.Store(int64(len(x.claims)))
	}
	c.add(e)
	x.settle(e.digest, c)
}

// disown takes a digest from an entry whose object is gone, or has it no more.
func (x *Index) disown(e *entry) {
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
	x.set(digest, winner)
}

func (x *Index) set(digest token.Digest, e *entry) {
	s := &x.shards[digest[0]]
	s.mu.Lock()
	before := len(s.keys)
	if e == nil {
		delete(s.keys, digest)
	} else {
		s.keys[digest] = e
	}
	x.size.Add(int64(len(s.keys) - before))
	s.mu.Unlock()
}
