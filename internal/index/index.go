// Package index finds keys by the digest of their token. Don't handle tokens here, don't decide and don't
// read a clock. Don't depend on where keys come from or who asks for them.
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

// ID identifies an ApiKey.
type ID struct {
	Namespace, Name string
}

// Credential is a digest of a key and how long it is accepted.
type Credential struct {
	Digest token.Digest
	// Deadline is the expiry time of the token: that of the key, or an earlier one.
	Deadline expiry.Deadline
	// Retiring says that the token is the one before the last rotation.
	Retiring bool
	// Recorded is the last use of the token that the cluster has on record, or zero if there is none.
	Recorded time.Time
}

// Entry is what the index needs to know about an ApiKey.
type Entry struct {
	ID
	UID string
	// Created is the creation time of the ApiKey. It shows which of two objects with the same digest is
	// older.
	Created time.Time

	// Credentials of the key. Empty for a key without a token. If a digest occurs twice, the first counts.
	Credentials []Credential
	// Suspended makes every credential of the key refused.
	Suspended bool
	// Networks from which the key may be used. The index may keep them.
	Networks access.Networks
	// Roles in the spec of the ApiKey.
	Roles []string
	// Attributes say whose key it is.
	Attributes verify.Attributes
}

// Options configure an [Index]. The zero value is usable.
type Options struct {
	// MaxStaleness is the age up to which the data of a source counts as fresh. Zero means no limit.
	MaxStaleness time.Duration
}

// Index maps digests to keys. Any number of goroutines may read it while others write.
type Index struct {
	byDigest *table // read without a lock

	mu       sync.Mutex // guards what follows, and is held while tables are written
	roles    roleSets
	networks recentNetworks
	claims   map[token.Digest]*claim // of digests that more than one object has or had

	// Sources and the catalogue are added before the first read.
	sources   []*Source
	catalogue *Catalogue // nil if there is none

	unsettled    atomic.Int64 // number of feeds that are neither loaded nor forbidden
	size         atomic.Int64
	duplicates   atomic.Int64
	maxStaleness time.Duration
	// born is the time that ages are measured from. Its monotonic reading keeps ages right when the clock is
	// set.
	born time.Time
}

// New returns an empty index. Until a source is heard of, its age is measured from now.
func New(now time.Time, options Options) *Index {
	return &Index{
		byDigest: newDigestTable(), roles: newRoleSets(), networks: newRecentNetworks(), claims: map[token.Digest]*claim{},
		maxStaleness: options.MaxStaleness, born: now,
	}
}

// Find implements [verify.Keys]. A key is fresh while the catalogue and the source of the key are, regardless
// of other sources.
func (x *Index) Find(digest token.Digest, now time.Time) (key *verify.Key, fresh bool) {
	e := x.byDigest.withDigest(&digest)
	if e == nil {
		return nil, false
	}
	at := x.at(now)
	return &e.key, x.settled(at) && e.source.fresh(at)
}

// Ready implements [verify.Keys]. It is true if every source is loaded or forbidden, and if the catalogue and
// at least one source are fresh. If all sources are stale, an unknown token may belong to a new key. A stale
// catalogue affects every key.
func (x *Index) Ready(now time.Time) bool {
	at := x.at(now)
	return x.settled(at) && slices.ContainsFunc(x.sources, func(s *Source) bool { return s.fresh(at) })
}

// at converts a time to the representation that feeds use.
func (x *Index) at(now time.Time) time.Duration { return now.Sub(x.born) }

// settled reports whether what every key depends on is loaded and fresh.
func (x *Index) settled(at time.Duration) bool {
	return x.unsettled.Load() == 0 && (x.catalogue == nil || x.catalogue.fresh(at))
}

// Loaded reports whether the first load is complete: every source is loaded or forbidden, and the catalogue
// and at least one source are loaded.
func (x *Index) Loaded() bool {
	if x.unsettled.Load() != 0 || x.catalogue != nil && !x.catalogue.loaded.Load() {
		return false
	}
	return slices.ContainsFunc(x.sources, func(s *Source) bool { return s.loaded.Load() })
}

// Size returns the number of digests that can be found.
func (x *Index) Size() int { return int(x.size.Load()) }

// Duplicates returns the number of digests that are refused because more than one object has or had them.
func (x *Index) Duplicates() int { return int(x.duplicates.Load()) }

// feed is a source of keys or of the role catalogue.
type feed struct {
	index   *Index
	settled bool // loaded or forbidden
	loaded  atomic.Bool
	heard   atomic.Int64 // when the feed was last heard of, as a time.Duration since Index.born
}

// add adds a feed.
func (x *Index) add(f *feed) {
	f.index = x
	x.unsettled.Add(1)
}

// Heard records that the data of the feed was up to date at the time now.
func (f *feed) Heard(now time.Time) { f.heard.Store(int64(f.index.at(now))) }

// Age returns the time since the feed was last heard of, or since the index was created if it never was.
func (f *feed) Age(now time.Time) time.Duration {
	return f.index.at(now) - time.Duration(f.heard.Load())
}

// fresh reports whether the feed is loaded and its data is recent enough.
func (f *feed) fresh(at time.Duration) bool {
	return f.loaded.Load() && (f.index.maxStaleness == 0 || at-time.Duration(f.heard.Load()) <= f.index.maxStaleness)
}

// settle is called when it is known whether the feed can be read.
func (f *feed) settle() {
	if !f.settled {
		f.settled = true
		f.index.unsettled.Add(-1)
	}
}

// markLoaded is called when the first load of the feed is complete.
func (f *feed) markLoaded() {
	f.loaded.Store(true)
	f.settle()
}

// Catalogue is the feed of the role catalogue. Its methods must not be called concurrently.
type Catalogue struct {
	feed
}

// Catalogue adds the feed of the role catalogue. Call it at most once and before the first read. Without it,
// no role includes another.
func (x *Index) Catalogue() *Catalogue {
	x.catalogue = &Catalogue{}
	x.add(&x.catalogue.feed)
	return x.catalogue
}

// Replace sets the catalogue and marks the feed as loaded.
func (c *Catalogue) Replace(catalogue *access.Catalogue) {
	c.index.mu.Lock()
	stale := c.index.roles.setCatalogue(catalogue)
	c.index.mu.Unlock()
	// Without the lock, because this takes long for many sets, and revocations must not wait for it.
	resolver := catalogue.Resolver()
	for _, roles := range stale {
		resolver.Include(roles)
	}
	c.markLoaded()
}

// replace updates the entry of a digest without removing it in between.
func (x *Index) replace(old, e *entry) {
	c := x.claims[e.digest]
	if c == nil {
		x.set(e.digest, e)
		return
	}
	c.replace(old, e)
	x.settle(e.digest, c)
}

// own assigns a digest to an entry, unless other objects claim it.
func (x *Index) own(e *entry) {
	c := x.claims[e.digest]
	if c == nil {
		first := x.byDigest.withDigest(&e.digest)
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

// disown releases a digest whose object is gone or no longer has it.
func (x *Index) disown(e *entry) {
	c := x.claims[e.digest]
	if c == nil {
		x.set(e.digest, nil)
		return
	}
	c.drop(e)
	x.settle(e.digest, c)
}

// settle applies the outcome of a claim.
func (x *Index) settle(digest token.Digest, c *claim) {
	winner, over := c.winner()
	if over {
		delete(x.claims, digest)
		x.duplicates.Store(int64(len(x.claims)))
	}
	x.set(digest, winner)
}

func (x *Index) set(digest token.Digest, e *entry) {
	switch before := x.byDigest.withDigest(&digest); {
	case before == nil && e != nil:
		x.byDigest.insert(e)
	case before != nil && e != nil:
		x.byDigest.replace(before, e)
	case before != nil:
		x.byDigest.remove(before)
	}
	x.size.Store(int64(x.byDigest.size))
}
