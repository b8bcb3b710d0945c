package index

import (
	"hash/maphash"
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// roleSets keeps each set of roles once, however many keys carry it, and what its roles include: that is thus looked up when the
// catalogue changes, and not per request, nor per key.
type roleSets struct {
	catalogue *access.Catalogue
	// byHash finds a set by its names, without a copy of them as a map's key. Sets of one hash are a chain.
	byHash map[uint64]*roleSet
	hash   func(names []string) uint64
	byPart map[*access.Roles]*roleSet
	names  roleNames
}

type roleSet struct {
	roles *access.Roles
	hash  uint64
	next  *roleSet // of the same hash
	users int
	// interned says that the texts of the names are those of roleNames.
	interned bool
}

func newRoleSets() roleSets {
	seed := maphash.MakeSeed()
	return roleSets{
		catalogue: access.NewCatalogue(nil),
		byHash:    map[uint64]*roleSet{},
		hash:      func(names []string) uint64 { return hashOf(seed, names) },
		byPart:    map[*access.Roles]*roleSet{},
		names:     roleNames{byText: map[string]*roleName{}},
	}
}

func hashOf(seed maphash.Seed, names []string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, name := range names {
		_, _ = h.WriteString(name) // never fails
		_ = h.WriteByte(0)         // in no name, and never fails
	}
	return h.Sum64()
}

// turnTo takes another catalogue for what roles include, for sets that are made from now on, and returns those that it may change
// something for.
func (s *roleSets) turnTo(catalogue *access.Catalogue) []*access.Roles {
	flat := !s.catalogue.Nested() && !catalogue.Nested()
	s.catalogue = catalogue
	if flat {
		return nil
	}
	stale := make([]*access.Roles, 0, len(s.byPart))
	for roles := range s.byPart {
		stale = append(stale, roles)
	}
	return stale
}

// find is the set of names that are in order, each once; nil if no key has it.
func (s *roleSets) find(sorted []string) (*roleSet, uint64) {
	hash := s.hash(sorted)
	set := s.byHash[hash]
	for set != nil && !slices.Equal(set.roles.Direct(), sorted) {
		set = set.next
	}
	return set, hash
}

// acquire is the set of these roles. Each is released in the end. It may keep the names, and the text that they are in.
func (s *roleSets) acquire(names []string) *access.Roles {
	sorted := inOrder(names)
	set, hash := s.find(sorted)
	if set == nil {
		kept, interned := s.names.acquire(sorted)
		set = &roleSet{roles: access.SortedRoles(kept), hash: hash, next: s.byHash[hash], interned: interned}
		set.roles.Include(s.catalogue)
		s.byHash[hash], s.byPart[set.roles] = set, set
	}
	set.users++
	return set.roles
}

func (s *roleSets) release(roles *access.Roles) {
	set := s.byPart[roles]
	if set.users--; set.users > 0 {
		return
	}
	delete(s.byPart, roles)
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

// inOrder is the names in order, each once; the very slice if it is so already.
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

// Share is the names of roles in order, each once, as the index already has them for other keys; else a copy in one text, which holds on
// to nothing else. Whoever gathers many objects before it tells of them needs no more memory for their roles than the index will.
func (s *Source) Share(names []string) []string {
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
	text.Grow(size) // at once, so that what is cut off it below stays a part of it
	shared := make([]string, len(sorted))
	for i, name := range sorted {
		text.WriteString(name)
		shared[i] = text.String()[text.Len()-len(name):]
	}
	return shared
}

// maxInterned is how many names are interned. One that is interned costs some 60 bytes on top of its text, which pays where several sets
// have it, as is usual. Where somebody has keys of very many names made, no two of which are the same, it does not: the sets beyond this
// many names hold their own.
const maxInterned = 1 << 14

// roleNames keeps the text of each name once, however many sets have it.
type roleNames struct {
	byText map[string]*roleName
}

type roleName struct {
	text string
	sets int
}

// acquire is the same names as interned; false, and the names themselves, where there is no room for those that are new.
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

// release takes back what acquire has interned.
func (n *roleNames) release(names []string) {
	for _, text := range names {
		name := n.byText[text]
		if name.sets--; name.sets == 0 {
			delete(n.byText, text)
		}
	}
}
