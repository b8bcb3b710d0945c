package access

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// The model follows what each name includes, one by one. Roles must agree with it, whichever catalogue they
// had before.
func TestRolesAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	some := func(most int) []string {
		names := make([]string, random.IntN(most+1))
		for i := range names {
			names[i] = strconv.Itoa(random.IntN(150))
		}
		return names
	}
	for range 500 {
		direct := some(5)
		roles := NewRoles(direct...)
		for range 3 {
			entries := make([]Role, random.IntN(100))
			includes := map[string][]string{}
			for i := range entries {
				entries[i] = Role{Name: strconv.Itoa(random.IntN(150)), Includes: some(3)}
				includes[entries[i].Name] = append(includes[entries[i].Name], entries[i].Includes...)
			}
			carried := map[string]bool{}
			var follow func(names []string)
			follow = func(names []string) {
				for _, name := range names {
					if !carried[name] {
						carried[name] = true
						follow(includes[name])
					}
				}
			}
			follow(direct)
			catalogue := NewCatalogue(entries)
			roles.Include(catalogue)
			names := roles.Names()
			if len(names) != len(carried) || !slices.IsSorted(names) || !slices.Equal(names, catalogue.Closure(direct)) {
				t.Fatalf("roles %v with the catalogue %v: Names() = %v", direct, entries, names)
			}
			for i := range 150 {
				name := strconv.Itoa(i)
				if _, missing := roles.Missing([]string{name}); missing == carried[name] {
					t.Fatalf("roles %v with the catalogue %v: %s is missing: %t", direct, entries, name, missing)
				}
			}
		}
	}
}

func TestMissingDoesNotAllocate(t *testing.T) {
	roles := NewRoles("a", "write")
	roles.Include(catalogue("write: create", "create: update"))
	wanted := []string{"a", "update"}
	if n := testing.AllocsPerRun(100, func() {
		if name, missing := roles.Missing(wanted); missing {
			t.Errorf("%s is missing", name)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
