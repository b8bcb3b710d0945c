package index

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// Sets of one hash are told apart by their names, in whatever order they come and go; and nothing is left of those that are gone.
func TestSetsOfOneHash(t *testing.T) {
	s := newRoleSets()
	s.hash = func(names []string) uint64 { return uint64(len(names) % 2) }
	random := rand.New(rand.NewPCG(1, 2))
	held := map[string][]*access.Roles{}
	for range 20_000 {
		var names []string
		for _, name := range []string{"a", "b", "c", "d"} {
			if random.IntN(2) == 0 {
				names = append(names, name)
			}
		}
		id := strings.Join(names, "")
		if users := held[id]; len(users) > 0 && random.IntN(2) == 0 {
			s.release(users[0])
			held[id] = users[1:]
			continue
		}
		given := slices.Clone(names)
		random.Shuffle(len(given), func(i, j int) { given[i], given[j] = given[j], given[i] })
		got := s.acquire(given)
		if users := held[id]; len(users) > 0 && users[0] != got {
			t.Fatalf("%v has two sets", names)
		}
		if !slices.Equal(got.Names(), names) {
			t.Fatalf("%v became %v", given, got.Names())
		}
		held[id] = append(held[id], got)
	}
	for users := range maps.Values(held) {
		for _, roles := range users {
			s.release(roles)
		}
	}
	if len(s.byHash) != 0 || len(s.byPart) != 0 || len(s.names.byText) != 0 {
		t.Errorf("left: %v, %v, %v", s.byHash, s.byPart, s.names.byText)
	}
}

func rolesOf(x *Index, d token.Digest) *access.Roles {
	key, _ := x.Find(d, time.Time{})
	return key.Roles
}

// However often an object is told of, and however many digests it has, its roles are held once.
func TestAnObjectHoldsItsRolesOnce(t *testing.T) {
	x := New(time.Time{}, Options{})
	source := x.Source()
	id := ID{Namespace: "team", Name: "key"}
	one, two := Credential{Digest: token.Digest{1}}, Credential{Digest: token.Digest{2}}
	for _, e := range []Entry{
		{Credentials: []Credential{one}, Roles: []string{"read"}},
		{Credentials: []Credential{one}, Roles: []string{"read"}},
		{Credentials: []Credential{two, one}, Roles: []string{"read"}},
		{Credentials: []Credential{two, one}, Roles: []string{"write"}},
		{Credentials: []Credential{one}, Roles: []string{"write"}},
		{UID: "another", Credentials: []Credential{one}, Roles: []string{"write"}},
	} {
		e.ID = id
		source.Put(e)
		if set := x.roles.byPart[rolesOf(x, one.Digest)]; len(x.roles.byPart) != 1 || set == nil || set.users != 1 {
			t.Errorf("after %+v: %d sets of roles, with %+v", e, len(x.roles.byPart), set)
		}
	}
	source.Remove(id)
	if len(x.roles.byPart) != 0 {
		t.Errorf("%d sets of roles are left", len(x.roles.byPart))
	}
}

func TestANameIsKeptOnce(t *testing.T) {
	s := newRoleSets()
	one, two := s.acquire([]string{strings.Clone("read"), "write"}), s.acquire([]string{strings.Clone("read")})
	if unsafe.StringData(one.Direct()[0]) != unsafe.StringData(two.Direct()[0]) { //nolint:gosec // compared, not used
		t.Error("two copies of one name")
	}
	s.release(one)
	if len(s.names.byText) != 1 || !slices.Equal(two.Names(), []string{"read"}) {
		t.Errorf("interned: %v; the other set is %v", s.names.byText, two.Names())
	}
}

// Beyond what is interned a set is as good as any.
func TestSetsOfMoreNamesThanAreInterned(t *testing.T) {
	s := newRoleSets()
	full := s.acquire(worst{names: maxInterned, size: 8}.of(0))
	late := s.acquire([]string{"late"})
	if again := s.acquire([]string{"late"}); again != late || len(s.names.byText) != maxInterned {
		t.Errorf("%d names are interned, and of one set there are: %v, %v", len(s.names.byText), late.Names(), again.Names())
	}
	s.release(full)
	s.release(late)
	s.release(late)
	if len(s.byPart) != 0 || len(s.names.byText) != 0 {
		t.Errorf("%d sets and %d names are left", len(s.byPart), len(s.names.byText))
	}
}

func TestShare(t *testing.T) {
	x := New(time.Time{}, Options{})
	source := x.Source()
	if got := source.Share([]string{"b", "a", "b"}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("shared %v", got)
	}
	if got := source.Share(nil); len(got) != 0 {
		t.Errorf("shared %v", got)
	}
	source.Put(Entry{Credentials: make([]Credential, 1), Roles: []string{"b", "a"}})
	if got := source.Share([]string{"b", "a"}); unsafe.SliceData(got) != unsafe.SliceData(rolesOf(x, token.Digest{}).Direct()) { //nolint:gosec // compared, not used
		t.Error("another slice than the index has")
	}
	const size = 16 << 20
	var kept []string
	if held := heldBy(func() any {
		long := strings.Repeat("r", size)
		kept = source.Share([]string{long[:8]})
		return kept
	}); held > 1 {
		t.Errorf("%.1f MiB are held by %v", held, kept)
	}
}

// worst is a kind of key that somebody may make many of: of so many names of such a length, none of which any other has.
type worst struct{ names, size int }

// The schema allows a key 16 KiB of role names.
var worstKinds = []worst{{256, 64}, {253, 63}, {64, 253}, {256, 8}}

func (w worst) String() string { return fmt.Sprintf("%d names of %d", w.names, w.size) }

func (w worst) of(key int) []string {
	names := make([]string, w.names)
	for i := range names {
		names[i] = fmt.Sprintf("%0*x", w.size, key*w.names+i)
	}
	return names
}

const worstKeys = 2_000

// load tells an index of keys, as a loader does.
func load(roles func(key int) []string) *Index {
	x := New(time.Time{}, Options{})
	source := x.Source()
	entries := make([]Entry, worstKeys)
	for i := range entries {
		entries[i] = Entry{ID: ID{Namespace: "team", Name: fmt.Sprintf("key-%d", i)}, Roles: source.Share(roles(i))}
		entries[i].Credentials = []Credential{{Digest: token.Digest{byte(i), byte(i >> 8)}}}
	}
	source.Replace(entries)
	return x
}

// everything is a catalogue with a role that includes n others.
func everything(n int) *access.Catalogue {
	roles := []access.Role{{Name: "everything"}}
	for i := range n {
		roles[0].Includes = append(roles[0].Includes, fmt.Sprintf("%064x", i))
	}
	return access.NewCatalogue(roles)
}

// heldBy is how many MiB of live heap are held by what a function returns.
func heldBy(f func() any) float64 {
	heap := func() float64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC() // what was swept late by the first
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc)
	}
	before := heap()
	made := f()
	held := heap() - before
	runtime.KeepAlive(made)
	return held / (1 << 20)
}

// 32 MiB of these are the names themselves. The garbage collector lets a heap grow to twice of what is live, so that 45 MiB are 90.
func TestMemoryOfTheWorstKeys(t *testing.T) {
	for _, kind := range worstKinds {
		if held := heldBy(func() any { return load(kind.of) }); held > 45 {
			t.Errorf("%d keys of %s hold %.1f MiB", worstKeys, kind, held)
		}
	}
}

// Each of these keys carries 5,000 roles: as lists they would be 150 MiB.
func TestMemoryOfWhatIsIncluded(t *testing.T) {
	roles := func(key int) []string { return []string{"everything", fmt.Sprintf("own-%d", key)} }
	const included = 5_000
	held := heldBy(func() any {
		x := load(roles)
		x.Catalogue().Replace(everything(included))
		if got := len(rolesOf(x, token.Digest{1}).Names()); got != included+2 {
			t.Errorf("a key carries %d roles", got)
		}
		return x
	})
	if held > 10 {
		t.Errorf("%d keys of two roles, one of which includes %d, hold %.1f MiB", worstKeys, included, held)
	}
}

// What is left is the map of interned names, which does not shrink when it is emptied.
func TestNoNameIsLeftOfTheWorstKeys(t *testing.T) {
	if held := heldBy(func() any {
		x := load(worstKinds[0].of)
		x.sources[0].Replace(nil)
		return x
	}); held > 2 {
		t.Errorf("%.1f MiB are left", held)
	}
}

// BenchmarkWorst tells the live heap that 2,000 keys hold of the kinds that hold most.
func BenchmarkWorst(b *testing.B) {
	for _, kind := range worstKinds {
		b.Run(kind.String(), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(heldBy(func() any { return load(kind.of) }), "MiB")
			}
		})
	}
	for _, included := range []int{5_000, 50_000} {
		b.Run(fmt.Sprintf("a role that includes %d", included), func(b *testing.B) {
			catalogue := everything(included)
			for b.Loop() {
				b.ReportMetric(heldBy(func() any {
					x := load(func(key int) []string { return []string{"everything", fmt.Sprintf("own-%d", key)} })
					x.Catalogue().Replace(catalogue)
					return x
				}), "MiB")
			}
		})
	}
}
