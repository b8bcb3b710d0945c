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

// Sets with the same hash are distinguished by their names, in whatever order they are acquired and released.
func TestSetsWithTheSameHash(t *testing.T) {
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
			t.Fatalf("there are two sets of %v", names)
		}
		if !slices.Equal(got.Names(), names) {
			t.Fatalf("the set of %v has the names %v", given, got.Names())
		}
		held[id] = append(held[id], got)
	}
	for users := range maps.Values(held) {
		for _, roles := range users {
			s.release(roles)
		}
	}
	if len(s.byHash) != 0 || len(s.byRoles) != 0 || len(s.names.byText) != 0 {
		t.Errorf("after all sets are released, these are left: byHash %v, byRoles %v, names %v", s.byHash, s.byRoles, s.names.byText)
	}
}

func rolesOf(x *Index, d token.Digest) *access.Roles {
	key, _ := x.Find(d, time.Time{})
	return key.Roles
}

// An object uses its set of roles once, however often it is updated and however many digests it has.
func TestObjectUsesItsRoleSetOnce(t *testing.T) {
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
		if set := x.roles.byRoles[rolesOf(x, one.Digest)]; len(x.roles.byRoles) != 1 || set == nil || set.users != 1 {
			t.Errorf("after Put(%+v): %d sets of roles, the set of the object is %+v; want one set with one user", e, len(x.roles.byRoles), set)
		}
	}
	source.Remove(id)
	if len(x.roles.byRoles) != 0 {
		t.Errorf("after the object is removed, %d sets of roles are left", len(x.roles.byRoles))
	}
}

func TestNamesAreInterned(t *testing.T) {
	s := newRoleSets()
	one, two := s.acquire([]string{strings.Clone("read"), "write"}), s.acquire([]string{strings.Clone("read")})
	if unsafe.StringData(one.Direct()[0]) != unsafe.StringData(two.Direct()[0]) { //nolint:gosec // compared, not used
		t.Error("two sets have different copies of the same name")
	}
	s.release(one)
	if len(s.names.byText) != 1 || !slices.Equal(two.Names(), []string{"read"}) {
		t.Errorf("after the release of one set, %v is interned and the other set has %v", s.names.byText, two.Names())
	}
}

// Sets beyond maxInterned work without interned names.
func TestSetsBeyondMaxInterned(t *testing.T) {
	s := newRoleSets()
	full := s.acquire(worst{names: maxInterned, size: 8}.of(0))
	late := s.acquire([]string{"late"})
	if again := s.acquire([]string{"late"}); again != late || len(s.names.byText) != maxInterned {
		t.Errorf("%d names are interned, and acquiring a set twice returns %v and %v", len(s.names.byText), late.Names(), again.Names())
	}
	s.release(full)
	s.release(late)
	s.release(late)
	if len(s.byRoles) != 0 || len(s.names.byText) != 0 {
		t.Errorf("after all sets are released, %d sets and %d names are left", len(s.byRoles), len(s.names.byText))
	}
}

func TestShareRoles(t *testing.T) {
	x := New(time.Time{}, Options{})
	source := x.Source()
	if got := source.shareRoles([]string{"b", "a", "b"}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("shareRoles = %v, want [a b]", got)
	}
	if got := source.shareRoles(nil); len(got) != 0 {
		t.Errorf("shareRoles(nil) = %v, want nothing", got)
	}
	source.Put(Entry{Credentials: make([]Credential, 1), Roles: []string{"b", "a"}})
	if got := source.shareRoles([]string{"b", "a"}); unsafe.SliceData(got) != unsafe.SliceData(rolesOf(x, token.Digest{}).Direct()) { //nolint:gosec // compared, not used
		t.Error("shareRoles does not return the slice of the index")
	}
	const size = 16 << 20
	var kept []string
	if held := heldBy(func() any {
		long := strings.Repeat("r", size)
		kept = source.shareRoles([]string{long[:8]})
		return kept
	}); held > 1 {
		t.Errorf("the result %v of shareRoles keeps %.1f MiB alive", kept, held)
	}
}

// worst is a kind of key that takes much memory: with many long names that no other key has.
type worst struct{ names, size int }

// The schema limits the role names of a key to 16 KiB.
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

// load returns an index with worstKeys keys, loaded as feed does it.
func load(roles func(key int) []string) *Index {
	x := New(time.Time{}, Options{})
	source := x.Source()
	objects := make([]*Object, worstKeys)
	for i := range objects {
		e := Entry{ID: ID{Namespace: "team", Name: fmt.Sprintf("key-%d", i)}, Roles: roles(i)}
		e.Credentials = []Credential{{Digest: token.Digest{byte(i), byte(i >> 8)}}}
		objects[i] = source.Object(e)
	}
	source.ReplaceObjects(objects)
	return x
}

// everything returns a catalogue with a role that includes n others.
func everything(n int) *access.Catalogue {
	roles := []access.Role{{Name: "everything"}}
	for i := range n {
		roles[0].Includes = append(roles[0].Includes, fmt.Sprintf("%064x", i))
	}
	return access.NewCatalogue(roles)
}

// heldBy returns how many MiB of live heap the result of a function takes.
func heldBy(f func() any) float64 {
	heap := func() float64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC() // frees what the first run left to sweep
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc)
	}
	before := heap()
	made := f()
	held := heap() - before
	runtime.KeepAlive(made)
	return held / (1 << 20)
}

// The names alone take 32 MiB. The garbage collector lets the heap grow to twice the live heap, so 45 MiB
// become 90 MiB.
func TestMemoryOfTheWorstKeys(t *testing.T) {
	for _, kind := range worstKinds {
		if held := heldBy(func() any { return load(kind.of) }); held > 45 {
			t.Errorf("%d keys with %s take %.1f MiB, want at most 45", worstKeys, kind, held)
		}
	}
}

// Each of these keys carries 5,000 roles. As lists, they would take 150 MiB.
func TestMemoryOfIncludedRoles(t *testing.T) {
	roles := func(key int) []string { return []string{"everything", fmt.Sprintf("own-%d", key)} }
	const included = 5_000
	held := heldBy(func() any {
		x := load(roles)
		x.Catalogue().Replace(everything(included))
		if got := len(rolesOf(x, token.Digest{1}).Names()); got != included+2 {
			t.Errorf("a key carries %d roles, want %d", got, included+2)
		}
		return x
	})
	if held > 10 {
		t.Errorf("%d keys with two roles, where one includes %d, take %.1f MiB, want at most 10", worstKeys, included, held)
	}
}

// The map of interned names is left: Go maps don't shrink.
func TestNamesOfRemovedKeysAreFreed(t *testing.T) {
	if held := heldBy(func() any {
		x := load(worstKinds[0].of)
		x.sources[0].Replace(nil)
		return x
	}); held > 2 {
		t.Errorf("after all keys are removed, %.1f MiB are in use, want at most 2", held)
	}
}

// BenchmarkWorst reports the live heap of 2,000 keys of the kinds that take most.
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
