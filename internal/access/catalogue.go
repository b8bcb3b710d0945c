package access

import (
	"math/bits"
	"slices"
)

// Role is an entry of a [Catalogue].
type Role struct {
	Name string
	// Includes are the roles that a key with this role also carries.
	Includes []string
}

// Catalogue is the role catalogue of a cluster: its roles and what they include. The zero value is empty. A
// catalogue never changes, so it is safe for concurrent use.
type Catalogue struct {
	// names are the sorted names of all entries and of everything they include. Sets of roles refer to positions in it.
	names    []string
	position map[string]int
	// entries and includes are indexed by the position in names.
	entries  set
	includes [][]int
	nested   bool
}

// NewCatalogue returns a catalogue with these roles. If a name occurs twice, both entries count.
func NewCatalogue(roles []Role) *Catalogue {
	c := &Catalogue{position: make(map[string]int, len(roles))}
	note := func(name string) {
		if _, known := c.position[name]; !known {
			c.position[name] = 0 // until all are sorted
			c.names = append(c.names, name)
		}
	}
	for _, role := range roles {
		note(role.Name)
		for _, name := range role.Includes {
			note(name)
		}
		c.nested = c.nested || len(role.Includes) > 0
	}
	slices.Sort(c.names)
	for i, name := range c.names {
		c.position[name] = i
	}
	c.entries, c.includes = newSet(len(c.names)), make([][]int, len(c.names))
	for _, role := range roles {
		i := c.position[role.Name]
		c.entries.add(i)
		for _, name := range role.Includes {
			c.includes[i] = append(c.includes[i], c.position[name])
		}
	}
	return c
}

// Empty reports whether the catalogue has no entries.
func (c *Catalogue) Empty() bool { return len(c.names) == 0 }

// Nested reports whether any role includes another.
func (c *Catalogue) Nested() bool { return c.nested }

// Knows reports whether the catalogue has an entry for the role. It is false for a role that others include
// but that has no entry.
func (c *Catalogue) Knows(role string) bool {
	i, known := c.position[role]
	return known && c.entries.has(i)
}

// Closure returns the roles and, transitively, everything they include, sorted and without duplicates. Names
// without an entry are part of the result but include nothing. The time is linear in the size of the
// catalogue.
func (c *Catalogue) Closure(roles []string) []string {
	sorted := slices.Clone(roles)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	if included := c.reach(sorted); included != nil {
		return c.merge(sorted, included)
	}
	return sorted
}

// reach returns the positions of the given roles that are in the catalogue and of everything they include, or
// nil if they include nothing.
func (c *Catalogue) reach(roles []string) set {
	includes := func(role string) bool {
		i, known := c.position[role]
		return known && len(c.includes[i]) > 0
	}
	if !c.nested || !slices.ContainsFunc(roles, includes) {
		return nil
	}
	reached := newSet(len(c.names))
	var open []int
	visit := func(i int) {
		if !reached.has(i) {
			reached.add(i)
			open = append(open, i)
		}
	}
	for _, role := range roles {
		if i, known := c.position[role]; known {
			visit(i)
		}
	}
	for len(open) > 0 {
		i := open[len(open)-1]
		open = open[:len(open)-1]
		for _, included := range c.includes[i] {
			visit(included)
		}
	}
	return reached
}

// Resolver sets what many sets of roles include, according to one catalogue. It finds out once for each role, so that many sets with
// a role that includes the whole catalogue don't take the time of that many catalogues. It must not be used concurrently.
type Resolver struct {
	catalogue *Catalogue
	known     map[int]set // by the position of a role that includes others: it, and everything it includes
}

// Resolver returns a resolver for the catalogue.
func (c *Catalogue) Resolver() *Resolver { return &Resolver{c, map[int]set{}} }

// Include does the same as [Roles.Include].
func (r *Resolver) Include(roles *Roles) { roles.include(r.catalogue, r.reach(roles.names)) }

// reach returns the same as [Catalogue.reach].
func (r *Resolver) reach(roles []string) set {
	c := r.catalogue
	var reached set
	for _, role := range roles {
		if i, known := c.position[role]; known && len(c.includes[i]) > 0 {
			if reached == nil {
				reached = newSet(len(c.names))
			}
			reached.addAll(r.closure(i))
		}
	}
	if reached == nil {
		return nil
	}
	for _, role := range roles {
		if i, known := c.position[role]; known {
			reached.add(i)
		}
	}
	return reached
}

// closure returns a role and everything it includes.
func (r *Resolver) closure(role int) set {
	if reached, ok := r.known[role]; ok {
		return reached
	}
	reached, open := newSet(len(r.catalogue.names)), []int{role}
	reached.add(role)
	for len(open) > 0 {
		i := open[len(open)-1]
		open = open[:len(open)-1]
		if known, ok := r.known[i]; ok {
			reached.addAll(known)
			continue
		}
		for _, included := range r.catalogue.includes[i] {
			if !reached.has(included) {
				reached.add(included)
				open = append(open, included)
			}
		}
	}
	r.known[role] = reached
	return reached
}

// merge returns the names at the positions and the others, sorted and without duplicates. others must be
// sorted.
func (c *Catalogue) merge(others []string, positions set) []string {
	names := make([]string, 0, len(others)+positions.size())
	for i := range positions.all {
		for len(others) > 0 && others[0] < c.names[i] {
			names, others = append(names, others[0]), others[1:]
		}
		if len(others) > 0 && others[0] == c.names[i] {
			others = others[1:]
		}
		names = append(names, c.names[i])
	}
	return append(names, others...)
}

// set is a set of small integers with one bit each.
type set []uint64

func newSet(most int) set { return make(set, (most+63)/64) }

func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// addAll adds the members of another set, which is not larger.
func (s set) addAll(others set) {
	for at, word := range others {
		s[at] |= word
	}
}

func (s set) size() int {
	n := 0
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// all yields the members in ascending order.
func (s set) all(yield func(int) bool) {
	for at, word := range s {
		for ; word != 0; word &= word - 1 {
			if !yield(at*64 + bits.TrailingZeros64(word)) {
				return
			}
		}
	}
}
