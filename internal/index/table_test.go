package index

import (
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

// numbered returns an entry whose digest and name have the number.
func numbered(n int) *entry {
	e := &entry{digest: token.Digest{byte(n), byte(n >> 8), byte(n >> 16)}} //nolint:gosec // the truncation is intended
	e.key.Name = strconv.Itoa(n)
	return e
}

// The table must agree with a map, however entries come and go, and for hashes that are good and bad.
func TestTableAgainstAMap(t *testing.T) {
	const good = "all hashes differ"
	for name, hash := range map[string]func(maphash.Seed, *token.Digest) uint64{
		good:                 hashOfDigest,
		"four groups":        func(_ maphash.Seed, d *token.Digest) uint64 { return uint64(d[0]%4) | uint64(d[1])<<56 },
		"one group":          func(_ maphash.Seed, d *token.Digest) uint64 { return uint64(d[0]) << 56 },
		"one group, one tag": func(maphash.Seed, *token.Digest) uint64 { return 7 },
	} {
		for _, most := range []int{3, 12, 60} {
			random := rand.New(rand.NewPCG(1, 2))
			table := newTable(func(seed maphash.Seed, e *entry) uint64 { return hash(seed, &e.digest) })
			find := func(n int) *entry {
				d := numbered(n).digest
				g, slot := table.locate(hash(table.seed, &d), func(e *entry) bool { return e.digest == d })
				if g == nil {
					return nil
				}
				return g.slots[slot].Load()
			}
			model := map[int]*entry{}
			for range 50 * most {
				n := random.IntN(2 * most)
				before := model[n]
				switch {
				case before == nil && len(model) < most:
					model[n] = numbered(n)
					table.insert(model[n])
				case before != nil && random.IntN(3) == 0:
					e := numbered(n)
					table.replace(before, e)
					model[n] = e
				case before != nil:
					table.remove(before)
					delete(model, n)
				}
				if got := find(n); got != model[n] {
					t.Fatalf("%s, at most %d: number %d is %p, want %p", name, most, n, got, model[n])
				}
			}
			for n := range 2 * most {
				if got := find(n); got != model[n] {
					t.Errorf("%s, at most %d: in the end, number %d is %p, want %p", name, most, n, got, model[n])
				}
			}
			for n, e := range model {
				if got := table.withDigest(&e.digest); name == good && got != e {
					t.Errorf("at most %d: number %d is %p, want %p", most, n, got, e)
				}
			}
			if got := slices.Collect(table.all); len(got) != len(model) || table.size != len(model) {
				t.Errorf("%s, at most %d: all yields %d entries and the size is %d, want %d", name, most, len(got), table.size, len(model))
			}
		}
	}
}

func TestTableByID(t *testing.T) {
	table := newIDTable()
	entries := map[ID]*entry{}
	for n := range 300 {
		e := numbered(n)
		entries[e.id()] = e
		table.insert(e)
	}
	for e := range maps.Values(entries) {
		if got := table.withID(e.id()); got != e {
			t.Errorf("%v is %p, want %p", e.id(), got, e)
		}
	}
	if got := table.withID(ID{Namespace: "a"}); got != nil {
		t.Errorf("an unknown object is %v", got.id())
	}
}

// Keys come and go for years. A lookup of an unknown token must not become slower by that.
func TestTableStaysFastWhileEntriesComeAndGo(t *testing.T) {
	const size = 10_000
	table := newDigestTable()
	entries := make([]*entry, size)
	for n := range entries {
		entries[n] = numbered(n)
		table.insert(entries[n])
	}
	for n := size; n < 40*size; n++ {
		at := n % size
		table.remove(entries[at])
		entries[at] = numbered(n)
		table.insert(entries[at])
	}
	groups, longest, run := *table.groups.Load(), 0, 0
	for i := range groups {
		if run++; groups[i].tags.Load()&overflowed == 0 {
			run = 0
		}
		longest = max(longest, run)
	}
	if longest > 60 || len(groups)*slotsPerGroup > 4*size {
		t.Errorf("a lookup reads up to %d of %d groups, want at most 60 of %d", longest, len(groups), 4*size/slotsPerGroup)
	}
}

func BenchmarkUnknown(b *testing.B) {
	table := newDigestTable()
	for n := range 100_000 {
		table.insert(numbered(n))
	}
	unknown := token.Digest{31: 1}
	for b.Loop() {
		unknown[30]++
		if table.withDigest(&unknown) != nil {
			b.Fatal("an unknown digest is found")
		}
	}
}
