package model

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Span implements [Event].
func (o Operation) Span() (from, to time.Time) { return o.Asked, orNever(o.Answered) }

// Span implements [Event].
func (f Fault) Span() (from, to time.Time) { return f.From, orNever(f.To) }

// Span implements [Event].
func (s Start) Span() (from, to time.Time) { return s.At, s.At }

// Span implements [Event].
func (b Beat) Span() (from, to time.Time) { return b.At, b.At }

// Span implements [Event].
func (k Key) Span() (from, to time.Time) { return k.At, k.At }

// Span implements [Event].
func (s Secret) Span() (from, to time.Time) { return s.At, s.At }

// Span implements [Event].
func (a Answer) Span() (from, to time.Time) { return a.Start, a.End }

// Span implements [Event].
func (s Settled) Span() (from, to time.Time) { return s.At, s.Until }

// Span implements [Event].
func (f Finding) Span() (from, to time.Time) { return f.At, f.At }

// Touches implements [Event].
func (o Operation) Touches(subject string) bool { return subject == o.Subject || subject == o.UID }

// Touches implements [Event].
func (f Fault) Touches(subject string) bool { return subject == f.Target }

// Touches implements [Event].
func (s Start) Touches(subject string) bool { return subject == s.Process }

// Touches implements [Event].
func (b Beat) Touches(string) bool { return false }

// Touches implements [Event].
func (k Key) Touches(subject string) bool {
	return subject == k.UID || subject == k.Digest || subject == k.Pending || subject == k.Retiring || subject == k.Namespace+"/"+k.Name
}

// Touches implements [Event].
func (s Secret) Touches(subject string) bool { return subject == s.Owner || subject == s.Digest }

// Touches implements [Event].
func (a Answer) Touches(subject string) bool { return subject == a.Digest || subject == a.Verifier }

// Touches implements [Event].
func (s Settled) Touches(string) bool { return true }

// Touches implements [Event].
func (f Finding) Touches(string) bool { return true }

const clockFace = "15:04:05.000"

func (o Operation) String() string {
	text := fmt.Sprintf("%s..%s %s %s", face(o.Asked), face(o.Answered), o.Kind, o.Subject)
	if o.UID != "" {
		text += " uid " + o.UID
	}
	if o.Kind == Rotate {
		text += " with overlap " + o.Overlap.String()
	}
	if o.Value != nil {
		text += " to " + o.Value.String()
	}
	return text
}

// String names only what the setting has.
func (s Setting) String() string {
	var parts []string
	for name, values := range map[string][]string{"includes": s.Includes, "roles": s.Roles} {
		if len(values) > 0 {
			parts = append(parts, name+" "+strings.Join(values, ","))
		}
	}
	for name, value := range map[string]string{"selects": s.Selects, "label": s.Label} {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	switch {
	case s.Absent:
		return "absent"
	case s.Suspended:
		return "suspended"
	case len(parts) == 0:
		return "nothing"
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func (f Fault) String() string {
	text := fmt.Sprintf("%s..%s FAULT %s %s", face(f.From), face(f.To), f.Kind, f.Target)
	if f.Offset != 0 {
		text += " by " + f.Offset.String()
	}
	return text
}

func (s Start) String() string { return face(s.At) + " start " + s.Process }

func (b Beat) String() string { return face(b.At) + " beat of " + b.Kind }

func (k Key) String() string {
	if k.Gone {
		return fmt.Sprintf("%s ApiKey %s/%s uid %s version %d: gone", face(k.At), k.Namespace, k.Name, k.UID, k.Version)
	}
	text := fmt.Sprintf("%s ApiKey %s/%s uid %s version %d: reason %q, digest %q, expires %s, roles %v, networks %v",
		face(k.At), k.Namespace, k.Name, k.UID, k.Version, k.Reason, short(k.Digest), face(k.Deadline), k.Roles, k.Networks)
	if k.Pending != "" {
		text += fmt.Sprintf(", pending %q", short(k.Pending))
	}
	if k.Retiring != "" {
		text += fmt.Sprintf(", retiring %q until %s", short(k.Retiring), face(k.RetiresAt))
	}
	if !k.Used.IsZero() {
		text += ", last used " + face(k.Used)
	}
	return text
}

func (s Secret) String() string {
	return fmt.Sprintf("%s Secret %s/%s of uid %s with the token of digest %s", face(s.At), s.Namespace, s.Name, s.Owner, short(s.Digest))
}

func (a Answer) String() string {
	return fmt.Sprintf("%s..%s %s over %s: credential %s %s from %s for role %q namespace %q: %s",
		face(a.Start), face(a.End), a.Verifier, a.Protocol, a.Credential, short(a.Digest), a.Address, a.Role, a.Namespace, a.Result)
}

func (s Settled) String() string {
	return fmt.Sprintf("%s..%s settled, with %d Secrets", face(s.At), face(s.Until), len(s.Secrets))
}

func (f Finding) String() string { return face(f.At) + " " + f.Text }

func face(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(clockFace)
}

// short is enough of a digest to tell it from others.
func short(digest string) string {
	text := strings.TrimPrefix(digest, "sha256:")
	return text[:min(len(text), 12)]
}

// never is after everything.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func orNever(t time.Time) time.Time {
	if t.IsZero() {
		return never
	}
	return t
}
