package access

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Roles are the role names that somebody carries: some by themselves, and what these include by a catalogue. What is included takes a bit
// for each name of the catalogue, however long the names are: many who carry one role that includes everything hold no list of
// everything each. The nil set, and the zero value, are empty.
type Roles struct {
	names    []string // sorted, unique
	included atomic.Pointer[included]
}

// included is what a catalogue says of some roles.
type included struct {
	catalogue *Catalogue
	positions set
}

// NewRoles is the set of these names, in any order. They include nothing.
func NewRoles(names ...string) *Roles {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return SortedRoles(slices.Compact(sorted))
}

// SortedRoles is the set of names that are in order, each once. They include nothing. The caller must not change them from then on.
func SortedRoles(names []string) *Roles { return &Roles{names: names} }

// Include has the names include what a catalogue says, and nothing that another one said before. Others may read meanwhile.
func (r *Roles) Include(c *Catalogue) {
	var now *included
	if positions := c.reach(r.names); positions != nil {
		now = &included{catalogue: c, positions: positions}
	}
	r.included.Store(now)
}

// Direct are the names that are carried by themselves, in order. The caller must not change them.
func (r *Roles) Direct() []string {
	if r == nil {
		return nil
	}
	return r.names
}

// Names are all names in order. The caller must not change them. Where anything is included, they are put together at each call.
func (r *Roles) Names() []string {
	if r == nil {
		return nil
	}
	if i := r.included.Load(); i != nil {
		return i.catalogue.merge(r.names, i.positions)
	}
	return r.names
}

// Missing is the first of the wanted names that is not in the set; false if all are.
func (r *Roles) Missing(wanted []string) (string, bool) {
	for _, name := range wanted {
		if !r.has(name) {
			return name, true
		}
	}
	return "", false
}

func (r *Roles) has(name string) bool {
	if r == nil {
		return false
	}
	if _, found := slices.BinarySearch(r.names, name); found {
		return true
	}
	i := r.included.Load()
	if i == nil {
		return false
	}
	at, known := i.catalogue.position[name]
	return known && i.positions.has(at)
}

const (
	maxName  = 253 // of a DNS subdomain, RFC 1123
	maxLabel = 63  // of a DNS label, RFC 1123
)

// ValidateRole returns an error that says what is wrong with the name of a role: it is a DNS subdomain (RFC 1123), as in the
// schema of an ApiKey.
func ValidateRole(name string) error {
	if len(name) > maxName || !isSubdomain(name) {
		return fmt.Errorf("%.*q is no role: want lower-case letters, digits, - and ., such as org.permission.customer.read", maxName, name)
	}
	return nil
}

// ValidateNamespace returns an error that says what is wrong with the name of a namespace: it is a DNS label (RFC 1123).
func ValidateNamespace(name string) error {
	if !isLabel(name) {
		return fmt.Errorf("%.*q is no namespace: want at most 63 lower-case letters, digits and -", maxName, name)
	}
	return nil
}

func isSubdomain(name string) bool {
	// The labels of a subdomain are not bounded by themselves in Kubernetes.
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			continue
		}
		if !isAlphanumericOrInnerDash(name[start:i]) {
			return false
		}
		start = i + 1
	}
	return true
}

func isLabel(name string) bool { return len(name) <= maxLabel && isAlphanumericOrInnerDash(name) }

func isAlphanumericOrInnerDash(label string) bool {
	for i := range len(label) {
		c := label[i]
		alphanumeric := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alphanumeric && (c != '-' || i == 0 || i == len(label)-1) {
			return false
		}
	}
	return label != ""
}
