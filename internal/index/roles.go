package index

import (
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/policy"
)

// roleSets keeps each set of roles once, however many keys carry it.
type roleSets struct {
	byNames map[string]*roleSet
	bySet   map[*policy.Roles]*roleSet
}

type roleSet struct {
	id    string
	roles *policy.Roles
	users int
}

// acquire is the set of these roles. Each is released in the end.
func (s *roleSets) acquire(names []string) *policy.Roles {
	if s.byNames == nil {
		s.byNames, s.bySet = map[string]*roleSet{}, map[*policy.Roles]*roleSet{}
	}
	sorted := slices.Sorted(slices.Values(names))
	id := strings.Join(sorted, ",")
	set := s.byNames[id]
	if set == nil {
		for i := range sorted {
			sorted[i] = strings.Clone(sorted[i]) // not to hold on to the text that it was read from
		}
		set = &roleSet{id: strings.Clone(id), roles: policy.NewRoles(sorted...)}
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
