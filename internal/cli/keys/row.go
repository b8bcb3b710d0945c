package keys

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

// Row is what a list shows of a key.
type Row struct {
	Namespace, Name string
	// Status is the reason of Ready, or what the operator has not written yet: Pending, Expired or Deleting.
	Status string
	// DisplayName, Roles, CIDRs and Hint are those of the key.
	DisplayName string
	Roles       []string
	CIDRs       []string
	Hint        string
	Created     time.Time
	// Owner is the attribute owner, or empty.
	Owner string
	// Never says that the key does not expire. Otherwise ExpiresAt is when it does, or zero if that is not fixed yet.
	Never     bool
	ExpiresAt time.Time
	// Issued is when the first token was delivered, and Used the last use of any token that is on record. Each is zero if not.
	Issued, Used time.Time
	// Rotated is when the token was replaced last, and NextRotation when it will be by schedule. Both are zero if not.
	Rotated, NextRotation time.Time
}

// AttributeOwner is the attribute that says whose key it is.
const AttributeOwner = "owner"

// Statuses that no reason of Ready tells.
const (
	StatusPending  = "Pending"
	StatusDeleting = "Deleting"
)

// RowOf returns the row of a key at the time now.
func RowOf(key *v1alpha1.ApiKey, now time.Time) Row {
	r := Row{
		Namespace: key.Namespace, Name: key.Name, Status: status(key, now),
		DisplayName: key.Spec.DisplayName, Roles: key.Spec.Roles, CIDRs: key.Spec.CIDRs, Hint: key.Status.TokenHint,
		Created: key.CreationTimestamp.Time, Owner: key.Attributes()[AttributeOwner],
	}
	r.Never, r.ExpiresAt = expires(key)
	if key.Status.IssuedAt != nil {
		r.Issued = key.Status.IssuedAt.Time
	}
	if key.Status.LastUsedAt != nil {
		r.Used = key.Status.LastUsedAt.Time
	}
	if rotation := key.Status.Rotation; rotation != nil {
		if rotation.RotatedAt != nil {
			r.Rotated = rotation.RotatedAt.Time
		}
		if rotation.NextAt != nil {
			r.NextRotation = rotation.NextAt.Time
		}
	}
	return r
}

// expires returns when a key expires. For a key that is not issued yet, it knows only what the spec fixes.
func expires(key *v1alpha1.ApiKey) (never bool, at time.Time) {
	switch {
	case key.Status.ExpiresAt != nil:
		return false, key.Status.ExpiresAt.Time
	case key.Spec.Expiry.Never != nil && *key.Spec.Expiry.Never:
		return true, time.Time{}
	}
	if at, err := expiry.ParseMoment(key.Spec.Expiry.At); err == nil {
		return false, at
	}
	return false, time.Time{}
}

func status(key *v1alpha1.ApiKey, now time.Time) string {
	switch {
	case !key.DeletionTimestamp.IsZero():
		return StatusDeleting
	case key.ReadyReason() == "":
		return StatusPending
	case key.Status.ExpiresAt != nil && !now.Before(key.Status.ExpiresAt.Time):
		return string(v1alpha1.ReasonExpired)
	}
	return string(key.ReadyReason())
}

// Expires says when the key expires, as seen at the time now: never, 89d, or 3d ago.
func (r Row) Expires(now time.Time) string {
	switch {
	case r.Never:
		return Never
	case r.ExpiresAt.IsZero():
		return Unknown
	case now.Before(r.ExpiresAt):
		return duration.HumanDuration(r.ExpiresAt.Sub(now))
	default:
		return duration.HumanDuration(now.Sub(r.ExpiresAt)) + " ago"
	}
}

// NotSeen stands for a use that is not on record. It does not mean that there was none.
const NotSeen = "not seen"

// LastUsed says how long ago the last use was that is on record: 3h ago, or not seen.
func (r Row) LastUsed(now time.Time) string {
	if r.Used.IsZero() {
		return NotSeen
	}
	return duration.HumanDuration(max(0, now.Sub(r.Used))) + " ago"
}

// Rotates says how long ago the token was replaced, and when it will be again: 3d ago, in 27d.
func (r Row) Rotates(now time.Time) string {
	var parts []string
	if !r.Rotated.IsZero() {
		parts = append(parts, duration.HumanDuration(now.Sub(r.Rotated))+" ago")
	}
	if !r.NextRotation.IsZero() {
		parts = append(parts, "in "+duration.HumanDuration(max(0, r.NextRotation.Sub(now))))
	}
	if len(parts) == 0 {
		return Unknown
	}
	return strings.Join(parts, ", ")
}

// Unknown stands for what is not known.
const Unknown = "-"

// Age returns how old the key is.
func (r Row) Age(now time.Time) string { return duration.HumanDuration(now.Sub(r.Created)) }

// Filter says which keys a list shows. The zero value shows all.
type Filter struct {
	// ExpiringWithin, if more than 0, shows keys that work and expire within this time.
	ExpiringWithin time.Duration
	// UnusedFor, if more than 0, shows issued keys that have no recorded use within this time, and were not issued within it.
	UnusedFor time.Duration
	// Role, if not empty, shows keys whose spec has the role.
	Role string
	// Owner, if not empty, shows keys with this attribute owner.
	Owner string
}

// Shows reports whether a list shows a key at the time now.
func (f Filter) Shows(r Row, now time.Time) bool {
	if f.ExpiringWithin > 0 && (r.Status != string(v1alpha1.ReasonIssued) || r.ExpiresAt.IsZero() || !now.Before(r.ExpiresAt) || r.ExpiresAt.Sub(now) > f.ExpiringWithin) {
		return false
	}
	if last := later(r.Issued, r.Used); f.UnusedFor > 0 && (r.Issued.IsZero() || r.Status == string(v1alpha1.ReasonExpired) || now.Sub(last) < f.UnusedFor) {
		return false
	}
	if f.Owner != "" && f.Owner != r.Owner {
		return false
	}
	return f.Role == "" || slices.Contains(r.Roles, f.Role)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Orders are the columns by which a list can be sorted, each with its comparison.
var Orders = map[string]func(a, b Row) int{
	"name":    byName,
	"age":     func(a, b Row) int { return cmp.Or(b.Created.Compare(a.Created), byName(a, b)) },
	"expires": func(a, b Row) int { return cmp.Or(byExpiry(a, b), byName(a, b)) },
	"owner":   func(a, b Row) int { return cmp.Or(strings.Compare(a.Owner, b.Owner), byName(a, b)) },
	"used":    func(a, b Row) int { return cmp.Or(a.Used.Compare(b.Used), byName(a, b)) },
	"status":  func(a, b Row) int { return cmp.Or(strings.Compare(a.Status, b.Status), byName(a, b)) },
}

func byName(a, b Row) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// byExpiry sorts keys that expire first first, and those that don't, or for which it isn't known, last.
func byExpiry(a, b Row) int {
	if aOpen, bOpen := a.ExpiresAt.IsZero(), b.ExpiresAt.IsZero(); aOpen != bOpen {
		if aOpen {
			return 1
		}
		return -1
	}
	return a.ExpiresAt.Compare(b.ExpiresAt)
}
