package index

import (
	"hash/maphash"
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// roleSets stores each distinct set of roles once, together with what its roles include. So included roles
// are resolved when the catalogue changes, and not for each request or key.
type roleSets struct {
	catalogue *access.Catalogue
	// byHash finds a set by the hash of its names, so that the map needs no copy of them as a key. Sets with the
	// same hash are chained.
	byHash  map[uint64]*roleSet
	hash    func(names []string) uint64
	byRoles map[*access.Roles]*roleSet
	names   roleNames
}

type roleSet struct {
	roles *access.Roles
	hash  uint64
	next  *roleSet // with the same hash
	users int
	// interned means that the names are the strings of roleNames.
	interned bool
}

func newRoleSets() roleSets {
	seed := maphash.MakeSeed()
	return roleSets{
		catalogue: access.NewCatalogue(nil),
		byHash:    map[uint64]*roleSet{},
		hash:      func(names []string) uint64 { return hashOf(seed, names) },
		byRoles:   map[*access.Roles]*roleSet{},
		names:     roleNames{byText: map[string]*roleName{}},
	}
}

func hashOf(seed maphash.Seed, names []string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, name := range names {
		_, _ = h.WriteString(name) // never fails
		_ = h.WriteByte(0)         // separator, which no name contains; never fails
	}
	return h.Sum64()
}

// setCatalogue sets the catalogue for new sets, and returns the existing sets that must be updated.
func (s *roleSets) setCatalogue(catalogue *access.Catalogue) []*access.Roles {
	flat := !s.catalogue.Nested() && !catalogue.Nested()
	s.catalogue = catalogue
	if flat {
		return nil
	}
	stale := make([]*access.Roles, 0, len(s.byRoles))
	for roles := range s.byRoles {
		stale = append(stale, roles)
	}
	return stale
}

// find returns the set with these names, which must be sorted and unique, or nil.
func (s *roleSets) find(sorted []string) (*roleSet, uint64) {
	hash := s.hash(sorted)
	set := s.byHash[hash]
	for set != nil && !slices.Equal(set.roles.Direct(), sorted) {
		set = set.next
	}
	return set, hash
}

// acquire returns the set of these roles. The caller must release it. The set may keep the strings.
func (s *roleSets) acquire(names []string) *access.Roles {
	sorted := inOrder(names)
	set, hash := s.find(sorted)
	if set == nil {
		kept, interned := s.names.acquire(sorted)
		set = &roleSet{roles: access.SortedRoles(kept), hash: hash, next: s.byHash[hash], interned: interned}
		set.roles.Include(s.catalogue)
		s.byHash[hash], s.byRoles[set.roles] = set, set
	}
	set.users++
	return set.roles
}

func (s *roleSets) release(roles *access.Roles) {
	set := s.byRoles[roles]
	if set.users--; set.users > 0 {
		return
	}
	delete(s.byRoles, roles)
	if first := s.byHash[set.hash]; first != set {
		for first.next != set {
			first = first.next
		}
		first.next = set.next
	} else if set.next != nil {
		s.byHash[set.hash] = set.next
	} else {
		delete(s.byHash, set.hash)
	}
	if set.interned {
		s.names.release(roles.Direct())
	}
}

// inOrder returns the names sorted and without duplicates. It returns its argument if that is so already.
func inOrder(names []string) []string {
	for i := 1; i < len(names); i++ {
		if names[i-1] >= names[i] {
			sorted := slices.Clone(names)
			slices.Sort(sorted)
			return slices.Compact(sorted)
		}
	}
	return names
}

// shareRoles returns the names sorted and without duplicates. If the index already has this set for another key,
// it returns the slice of that set, and otherwise a copy that shares no memory with names.
func (s *Source) shareRoles(names []string) []string {
	sorted := inOrder(names)
	s.index.mu.Lock()
	set, _ := s.index.roles.find(sorted)
	s.index.mu.Unlock()
	if set != nil {
		return set.roles.Direct()
	}
	size := 0
	for _, name := range sorted {
		size += len(name)
	}
	var text strings.Builder
	text.Grow(size) // all at once: the buffer must not move, because the names are substrings of it
	shared := make([]string, len(sorted))
	for i, name := range sorted {
		text.WriteString(name)
		shared[i] = text.String()[text.Len()-len(name):]
	}
	return shared
}

// maxInterned limits the number of interned names. An interned name takes about 60 bytes in addition to its
// text. That pays off if several sets share it, which is usual. It doesn't if someone creates keys with very
// many different names, so sets beyond the limit keep their own strings.
const maxInterned = 1 << 14

// roleNames stores the text of each name once, however many sets have it.
type roleNames struct {
	byText map[string]*roleName
}

type roleName struct {
	text string
	sets int
}

// acquire returns the names as interned strings. If there is no room for the new ones, it returns its
// argument and false.
func (n *roleNames) acquire(names []string) ([]string, bool) {
	unknown := 0
	for _, name := range names {
		if n.byText[name] == nil {
			unknown++
		}
	}
	if len(n.byText)+unknown > maxInterned {
		return names, false
	}
	interned := make([]string, len(names))
	for i, text := range names {
		name := n.byText[text]
		if name == nil {
			name = &roleName{text: strings.Clone(text)}
			n.byText[name.text] = name
		}
		name.sets++
		interned[i] = name.text
	}
	return interned, true
}

// release releases names that acquire returned.
func (n *roleNames) release(names []string) {
	for _, text := range names {
		name := n.byText[text]
		if name.sets--; name.sets == 0 {
			delete(n.byText, text)
		}
	}
}
