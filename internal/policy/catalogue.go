package policy

import "slices"

// Role is an entry of the catalogue of roles.
type Role struct {
	Name string
	// Includes are roles that whoever carries this one carries too.
	Includes []string
}

// Catalogue is the roles that a cluster knows, and what they include. The zero value knows none. Once built it never changes, so
// that any number of goroutines may read it.
type Catalogue struct {
	includes map[string][]string
	nested   bool
}

// NewCatalogue builds a catalogue. Of two entries with one name both count.
func NewCatalogue(roles []Role) *Catalogue {
	c := &Catalogue{includes: make(map[string][]string, len(roles))}
	for _, role := range roles {
		c.includes[role.Name] = append(c.includes[role.Name], role.Includes...)
		c.nested = c.nested || len(role.Includes) > 0
	}
	return c
}

// Empty tells whether the catalogue has no entry.
func (c *Catalogue) Empty() bool { return len(c.includes) == 0 }

// Nested tells whether any role includes another.
func (c *Catalogue) Nested() bool { return c.nested }

// Knows tells whether the catalogue has an entry of that name. A role that is merely included by one is not known.
func (c *Catalogue) Knows(role string) bool {
	_, known := c.includes[role]
	return known
}

// Closure is all roles that whoever has these carries: the roles themselves and, transitively, what they include; sorted, each once.
// Names that the catalogue lacks, also included ones, are carried and include nothing. It takes time linear in what it visits.
func (c *Catalogue) Closure(roles []string) []string {
	closure := slices.Clone(roles)
	if c.nested {
		seen := make(map[string]bool, len(roles))
		closure = closure[:0]
		visit := func(roles []string) {
			for _, role := range roles {
				if !seen[role] {
					seen[role] = true
					closure = append(closure, role)
				}
			}
		}
		visit(roles)
		for i := 0; i < len(closure); i++ { // grows meanwhile
			visit(c.includes[closure[i]])
		}
	}
	slices.Sort(closure)
	return slices.Compact(closure)
}
