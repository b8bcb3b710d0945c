package index

import (
	"maps"
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/policy"
)

// roleSets keeps each set of roles once, however many keys carry it, with all that they include. What the catalogue says is thus
// resolved when it changes, and not per request, nor per key.
type roleSets struct {
	catalogue *policy.Catalogue
	byNames   map[string]*roleSet
	bySet     map[*policy.Roles]*roleSet
}

type roleSet struct {
	id string
	// direct are the roles that the keys themselves name; roles are those and what they include.
	direct []string
	roles  *policy.Roles
	users  int
}

func newRoleSets() roleSets {
	return roleSets{catalogue: policy.NewCatalogue(nil), byNames: map[string]*roleSet{}, bySet: map[*policy.Roles]*roleSet{}}
}

// turnTo takes another catalogue for what roles include, for sets that are made from now on, and returns those that it may change
// something for.
func (s *roleSets) turnTo(catalogue *policy.Catalogue) []*roleSet {
	flat := !s.catalogue.Nested() && !catalogue.Nested()
	s.catalogue = catalogue
	if flat {
		return nil
	}
	return slices.Collect(maps.Values(s.byNames))
}

// resolve says what the set's roles include by a catalogue.
func (s *roleSet) resolve(catalogue *policy.Catalogue) {
	if closure := catalogue.Closure(s.direct); !slices.Equal(closure, s.roles.Names()) {
		s.roles.Replace(closure)
	}
}

// acquire is the set of these roles. Each is released in the end.
func (s *roleSets) acquire(names []string) *policy.Roles {
	sorted := slices.Sorted(slices.Values(names))
	id := strings.Join(sorted, "\x00")
	set := s.byNames[id]
	if set == nil {
		for i := range sorted {
			sorted[i] = strings.Clone(sorted[i]) // not to hold on to the text that it was read from
		}
		set = &roleSet{id: id, direct: sorted, roles: policy.NewRoles(s.catalogue.Closure(sorted)...)}
		s.byNames[set.id], s.bySet[set.roles] = set, set
	}
	set.users++
	return set.roles
}

func (s *roleSets) release(roles *policy.Roles) {
	set := s.bySet[roles]
	if set.users--; set.users == 0 {
		delete(s.byNames, set.id)
		delete(s.bySet, roles)
	}
}
