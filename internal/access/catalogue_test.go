package access

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// catalogue parses entries such as "write: create update" or "read".
func catalogue(entries ...string) *Catalogue {
	roles := make([]Role, 0, len(entries))
	for _, entry := range entries {
		name, includes, _ := strings.Cut(entry, ":")
		roles = append(roles, Role{Name: name, Includes: strings.Fields(includes)})
	}
	return NewCatalogue(roles)
}

func TestClosure(t *testing.T) {
	for name, c := range map[string]struct {
		catalogue   *Catalogue
		roles, want string
	}{
		"of an empty catalogue":        {catalogue(), "b a", "a b"},
		"of the zero catalogue":        {&Catalogue{}, "b a b", "a b"},
		"without includes":             {catalogue("a", "b"), "b a", "a b"},
		"one step":                     {catalogue("write: create update", "create", "update"), "write", "create update write"},
		"several steps":                {catalogue("a: b", "b: c", "c: d"), "a", "a b c d"},
		"from the middle":              {catalogue("a: b", "b: c", "c: d"), "c", "c d"},
		"through a name without entry": {catalogue("a: x", "b"), "a", "a x"},
		"a role without an entry":      {catalogue("a: b"), "x", "x"},
		"a role that includes itself":  {catalogue("a: a"), "a", "a"},
		"a cycle":                      {catalogue("a: b", "b: c", "c: a"), "b", "a b c"},
		"a diamond":                    {catalogue("a: b c", "b: d", "c: d", "d"), "a", "a b c d"},
		"roles that include the same":  {catalogue("a: z", "b: z"), "b a", "a b z"},
		"an entry twice":               {catalogue("a: b", "a: c"), "a", "a b c"},
		"of no roles":                  {catalogue("a: b"), "", ""},
	} {
		given := strings.Fields(c.roles)
		before := slices.Clone(given)
		if got := c.catalogue.Closure(given); strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
		if !slices.Equal(given, before) {
			t.Errorf("%s: the argument was modified to %v", name, given)
		}
	}
}

func TestKnows(t *testing.T) {
	c := catalogue("a: b")
	if !c.Knows("a") || c.Knows("b") || c.Knows("") || c.Empty() || !catalogue().Empty() || (&Catalogue{}).Knows("a") {
		t.Error("Knows or Empty is wrong: a catalogue knows the roles that have an entry, and no others")
	}
}

func TestClosureOfADeepCatalogueIsComplete(t *testing.T) {
	const depth = 10_000
	roles := make([]Role, depth)
	for i := range roles {
		roles[i] = Role{Name: strconv.Itoa(i), Includes: []string{strconv.Itoa((i + 1) % depth)}}
	}
	if got := len(NewCatalogue(roles).Closure([]string{"0"})); got != depth {
		t.Errorf("the closure has %d roles, want %d", got, depth)
	}
}

// A resolver, which remembers, includes the same as each set by itself, in catalogues with cycles and with names without an entry.
func TestResolverIncludesTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	name := func() string { return "abcdefghijklmnopqrst"[random.IntN(20):][:1] }
	for range 500 {
		roles := make([]Role, random.IntN(30))
		for i := range roles {
			role := Role{Name: name()}
			for range random.IntN(4) {
				role.Includes = append(role.Includes, name())
			}
			roles[i] = role
		}
		c := NewCatalogue(roles)
		resolver := c.Resolver()
		for range 20 {
			names := make([]string, random.IntN(4))
			for i := range names {
				names[i] = name()
			}
			got, want := NewRoles(names...), NewRoles(names...)
			resolver.Include(got)
			want.Include(c)
			if !slices.Equal(got.Names(), want.Names()) {
				t.Fatalf("with %+v, %v includes %v, want %v", roles, names, got.Names(), want.Names())
			}
		}
	}
}
