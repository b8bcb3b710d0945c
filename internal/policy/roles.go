package policy

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Roles is a set of role names that somebody carries. It can be replaced as a whole while others read it. The nil set, and the zero
// value, are empty.
type Roles struct {
	names atomic.Pointer[[]string] // sorted, unique
}

// NewRoles is the set of these names, in any order.
func NewRoles(names ...string) *Roles {
	r := &Roles{}
	r.Replace(names)
	return r
}

// Replace makes it the set of these names, in any order.
func (r *Roles) Replace(names []string) {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	r.names.Store(&sorted)
}

// Names are the names in order. The caller must not change them.
func (r *Roles) Names() []string {
	if r == nil {
		return nil
	}
	if names := r.names.Load(); names != nil {
		return *names
	}
	return nil
}

// Missing is the first of the wanted names that is not in the set; false if all are.
func (r *Roles) Missing(wanted []string) (string, bool) {
	names := r.Names()
	for _, name := range wanted {
		if _, found := slices.BinarySearch(names, name); !found {
			return name, true
		}
	}
	return "", false
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
