package page

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

// span says how long a time is, as people do: 90 days, 3 hours. Days are rounded, so that a key that was added for 90 days says so. It is the
// same as in page.js.
func span(d time.Duration) string {
	unit, name := time.Second, "second"
	switch {
	case d >= 48*time.Hour:
		unit, name = 24*time.Hour, "day"
	case d >= 2*time.Hour:
		unit, name = time.Hour, "hour"
	case d >= 2*time.Minute:
		unit, name = time.Minute, "minute"
	}
	if unit > time.Hour {
		d = d.Round(unit)
	}
	n := int64(d / unit)
	if n != 1 {
		name += "s"
	}
	return fmt.Sprintf("%d %s", n, name)
}

// inWords says how long a duration of a spec is. A text that is none stays as it is.
func inWords(d v1alpha1.Duration) string {
	parsed, err := expiry.ParseDuration(string(d))
	if err != nil {
		return string(d)
	}
	return span(parsed)
}

// relative says when something is or was: in 89 days, 3 hours ago.
func relative(t, now time.Time) string {
	if t.After(now) {
		return "in " + span(t.Sub(now))
	}
	return span(now.Sub(t)) + " ago"
}

// spaced separates the words of a reason: NotAllowed becomes Not allowed.
func spaced(reason string) string {
	var text strings.Builder
	for i, r := range reason {
		if i > 0 && unicode.IsUpper(r) {
			text.WriteByte(' ')
			r = unicode.ToLower(r)
		}
		text.WriteRune(r)
	}
	return text.String()
}

// dots separates the parts of a name of a role, so that a browser breaks a long one at its dots.
func dots(name string) []string { return strings.Split(name, ".") }

// exact writes a time for people, in UTC.
func exact(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04:05 UTC") }

// machine writes a time for the script.
func machine(t time.Time) string { return t.UTC().Format(time.RFC3339) }
