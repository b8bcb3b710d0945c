package access

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Roles is the set of roles that a key carries: its own names, and the names that these include according to
// a [Catalogue]. Included names take one bit for each name of the catalogue. So many keys with one role that
// includes everything don't each hold a list of everything. Nil and the zero value are empty sets. Methods
// may be called concurrently.
type Roles struct {
	names    []string // sorted, unique
	included atomic.Pointer[included]
}

// included is what a catalogue adds to a set of roles.
type included struct {
	catalogue *Catalogue
	positions set
}

// NewRoles returns the set of these names, which may be in any order. They include nothing.
func NewRoles(names ...string) *Roles {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return SortedRoles(slices.Compact(sorted))
}

// SortedRoles returns the set of these names, which must be sorted and unique. They include nothing. The set
// keeps the slice, so the caller must not modify it.
func SortedRoles(names []string) *Roles { return &Roles{names: names} }

// Include sets the names that are included to those of the catalogue. It replaces what another catalogue
// included. It is safe to call it while others read.
func (r *Roles) Include(c *Catalogue) { r.include(c, c.reach(r.names)) }

func (r *Roles) include(c *Catalogue, positions set) {
	var now *included
	if positions != nil {
		now = &included{catalogue: c, positions: positions}
	}
	r.included.Store(now)
}

// Direct returns the names without the included ones, sorted. The caller must not modify the slice.
func (r *Roles) Direct() []string {
	if r == nil {
		return nil
	}
	return r.names
}

// Names returns all names, sorted. The caller must not modify the slice. If any names are included, each call
// allocates a new slice.
func (r *Roles) Names() []string {
	if r == nil {
		return nil
	}
	if i := r.included.Load(); i != nil {
		return i.catalogue.merge(r.names, i.positions)
	}
	return r.names
}

// Missing returns the first of the wanted names that isn't in the set, or false if all are.
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
	if contains(r.names, name) {
		return true
	}
	i := r.included.Load()
	if i == nil {
		return false
	}
	at, known := i.catalogue.position[name]
	return known && i.positions.has(at)
}

// fewNames is the number of names up to which comparing each of them for equality is faster than a binary search.
const fewNames = 8

// contains reports whether sorted has the name.
func contains(sorted []string, name string) bool {
	if len(sorted) <= fewNames {
		return slices.Contains(sorted, name)
	}
	_, found := slices.BinarySearch(sorted, name)
	return found
}

const (
	maxName  = 253 // length of a DNS subdomain (RFC 1123)
	maxLabel = 63  // length of a DNS label (RFC 1123)
)

// ValidateRole returns an error if name isn't a valid role name: a DNS subdomain (RFC 1123), as in the schema
// of ApiKey.
func ValidateRole(name string) error {
	if len(name) > maxName || !isSubdomain(name) {
		return fmt.Errorf("%.*q is not a role name: must be lower-case letters, digits, '-' and '.', such as org.permission.customer.read", maxName, name)
	}
	return nil
}

// ValidateNamespace returns an error if name isn't a valid name of a namespace: a DNS label (RFC 1123).
func ValidateNamespace(name string) error {
	if !isLabel(name) {
		return fmt.Errorf("%.*q is not a namespace name: must be at most 63 lower-case letters, digits and '-'", maxName, name)
	}
	return nil
}

func isSubdomain(name string) bool {
	// Kubernetes does not limit the length of each label of a subdomain.
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
