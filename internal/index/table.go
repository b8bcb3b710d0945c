package index

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

// table is a hash table of entries. One goroutine at a time may change it, while any number of others read it without a lock.
// That is why it isn't a map: with a lock, all cores would write to the memory of that lock for each request.
//
// An entry never moves within an array of groups, so that a reader can't miss one that stays. When the table grows, a new array
// takes the place of the old one, once it is complete.
type table struct {
	groups atomic.Pointer[[]group]
	seed   maphash.Seed
	hash   func(maphash.Seed, *entry) uint64
	size   int // number of entries
	full   int // number of groups with the flag overflowed
}

// group has a cache line of 64 bytes, so that a lookup usually reads one line besides that of the entry.
type group struct {
	// tags has a byte for each slot, with the tag of its entry, or 0 if the slot is free. The highest byte is the flag
	// overflowed.
	tags  atomic.Uint64
	slots [slotsPerGroup]atomic.Pointer[entry]
}

const (
	slotsPerGroup = 7
	// overflowed says that an entry was put into a later group because this one was full. It stays until the table is built
	// again.
	overflowed = uint64(1) << 63

	everyByte = 0x0101010101010101
	highBits  = 0x0080808080808080 // of the slots
)

// maxSize is the number of entries above which a table of so many groups grows.
func maxSize(groups int) int { return groups * slotsPerGroup * 4 / 5 }

// newTable returns an empty table. The hash is seeded, so that nobody can choose tokens that share a group.
func newTable(hash func(maphash.Seed, *entry) uint64) *table {
	t := &table{seed: maphash.MakeSeed(), hash: hash}
	groups := make([]group, 1)
	t.groups.Store(&groups)
	return t
}

func hashOfDigest(seed maphash.Seed, digest *token.Digest) uint64 {
	return maphash.Bytes(seed, digest[:])
}

func hashOfID(seed maphash.Seed, id ID) uint64 { return maphash.Comparable(seed, id) }

// newDigestTable returns a table for [table.withDigest].
func newDigestTable() *table {
	return newTable(func(seed maphash.Seed, e *entry) uint64 { return hashOfDigest(seed, &e.digest) })
}

// newIDTable returns a table for [table.withID].
func newIDTable() *table {
	return newTable(func(seed maphash.Seed, e *entry) uint64 { return hashOfID(seed, e.id()) })
}

// tagOf returns bits of a hash that don't determine the group.
func tagOf(hash uint64) uint64 { return max(hash>>56, 1) }

// candidates returns a bit for each slot whose tag matches, and possibly for some others.
func candidates(tags, tag uint64) uint64 {
	different := tags ^ tag*everyByte // has a byte that is zero for each slot that matches
	return (different - everyByte) &^ different & highBits
}

// slotOf returns the slot of the lowest of some candidates.
func slotOf(matches uint64) int { return bits.TrailingZeros64(matches) / 8 }

// lastOf returns the index of the last group, which is the mask of a hash.
func lastOf(groups []group) uint64 { return uint64(len(groups) - 1) } //nolint:gosec // there is at least one

// withDigest returns the entry with the digest, or nil.
func (t *table) withDigest(digest *token.Digest) *entry {
	hash := hashOfDigest(t.seed, digest)
	groups := *t.groups.Load()
	tag, last := tagOf(hash), lastOf(groups)
	for n := range last + 1 {
		g := &groups[(hash+n)&last]
		tags := g.tags.Load()
		for matches := candidates(tags, tag); matches != 0; matches &= matches - 1 {
			if e := g.slots[slotOf(matches)].Load(); e != nil && e.digest == *digest {
				return e
			}
		}
		if tags&overflowed == 0 {
			break
		}
	}
	return nil
}

// withID returns the entry of the object, or nil.
func (t *table) withID(id ID) *entry {
	g, slot := t.locate(hashOfID(t.seed, id), func(e *entry) bool { return e.id() == id })
	if g == nil {
		return nil
	}
	return g.slots[slot].Load()
}

// locate returns the slot of the entry with the hash for which is returns true, or nil.
func (t *table) locate(hash uint64, is func(*entry) bool) (*group, int) {
	groups := *t.groups.Load()
	last := lastOf(groups)
	for n := range last + 1 {
		g := &groups[(hash+n)&last]
		tags := g.tags.Load()
		for matches := candidates(tags, tagOf(hash)); matches != 0; matches &= matches - 1 {
			slot := slotOf(matches)
			if e := g.slots[slot].Load(); e != nil && is(e) {
				return g, slot
			}
		}
		if tags&overflowed == 0 {
			break
		}
	}
	return nil, 0
}

// insert adds an entry, which must not be in the table.
func (t *table) insert(e *entry) {
	t.reserve(t.size + 1)
	t.full += place(*t.groups.Load(), t.hash(t.seed, e), e)
	t.size++
}

// reserve makes room for so many entries. It also builds the table again if removed entries have left many groups with the flag
// overflowed, so that lookups don't become slower and slower.
func (t *table) reserve(size int) {
	old := *t.groups.Load()
	n := len(old)
	for size > maxSize(n) {
		n *= 2
	}
	if n == len(old) && (n == 1 || t.full <= n/2) {
		return
	}
	groups := make([]group, n)
	t.full = 0
	for e := range t.all {
		t.full += place(groups, t.hash(t.seed, e), e)
	}
	t.groups.Store(&groups)
}

// place puts an entry into its group or the next that has room. It returns the number of groups that got the flag overflowed.
func place(groups []group, hash uint64, e *entry) (flagged int) {
	last := lastOf(groups)
	for at := hash & last; ; at = (at + 1) & last {
		g := &groups[at]
		tags := g.tags.Load()
		for slot := range slotsPerGroup {
			if tags>>(8*slot)&0xff == 0 {
				g.slots[slot].Store(e)
				g.tags.Store(tags | tagOf(hash)<<(8*slot)) // last, so that a reader who sees the tag finds the entry
				return flagged
			}
		}
		if tags&overflowed == 0 {
			g.tags.Store(tags | overflowed)
			flagged++
		}
	}
}

// replace puts an entry in the place of another one with the same hash, which must be in the table.
func (t *table) replace(old, e *entry) {
	g, slot := t.locate(t.hash(t.seed, old), func(other *entry) bool { return other == old })
	g.slots[slot].Store(e)
}

// remove removes an entry, which must be in the table.
func (t *table) remove(e *entry) {
	g, slot := t.locate(t.hash(t.seed, e), func(other *entry) bool { return other == e })
	g.tags.Store(g.tags.Load() &^ (0xff << (8 * slot)))
	g.slots[slot].Store(nil)
	t.size--
}

// all yields the entries. It may be called while the table changes: then it may or may not yield those that are added or removed
// meanwhile.
func (t *table) all(yield func(*entry) bool) {
	groups := *t.groups.Load()
	for i := range groups {
		for slot := range groups[i].slots {
			if e := groups[i].slots[slot].Load(); e != nil && !yield(e) {
				return
			}
		}
	}
}
