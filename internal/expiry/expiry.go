// Package expiry does the arithmetic on durations and expiry times. It must not read a clock: times are arguments.
//
// All results are whole seconds, the resolution of times in a Kubernetes status. A time is truncated to the second before
// anything is computed from it, so that stored and computed times can't differ.
package expiry

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxDuration is the longest duration in the API: ten years of 365 days.
	MaxDuration = 3650 * day

	day = 24 * time.Hour

	// A key is expiring in the last fifth of its lifetime, but no earlier than two weeks before it expires.
	warnFraction = 5
	maxWarning   = 14 * day
)

var durationGrammar = regexp.MustCompile(`^(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?$`)

// ParseDuration parses days, hours, minutes and seconds in this order, each optional, such as 90d, 12h30m or 0s; at most
// [MaxDuration]. It accepts exactly what the schema of the CRDs accepts for the type Duration.
func ParseDuration(text string) (time.Duration, error) {
	groups := durationGrammar.FindStringSubmatch(text)
	if text == "" || groups == nil {
		return 0, fmt.Errorf("invalid duration %q: must be days, hours, minutes and seconds in this order, such as 90d or 12h30m", text)
	}
	var seconds int64
	for i, unit := range []time.Duration{day, time.Hour, time.Minute, time.Second} {
		if groups[i+1] == "" {
			continue
		}
		// There are at most nine digits, so neither this nor the sum can overflow.
		n, err := strconv.ParseInt(groups[i+1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("invalid duration %q: %w", text, err)
		}
		seconds += n * int64(unit/time.Second)
	}
	if seconds > int64(MaxDuration/time.Second) {
		return 0, fmt.Errorf("invalid duration %q: must be at most 3650d", text)
	}
	return time.Duration(seconds) * time.Second, nil
}

// FormatDuration formats a duration of at most [MaxDuration] so that [ParseDuration] returns it, truncated to the second.
func FormatDuration(d time.Duration) string {
	var text strings.Builder
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / unit.length; n > 0 {
			text.WriteString(strconv.FormatInt(int64(n), 10) + unit.name)
			d %= unit.length
		}
	}
	if text.Len() == 0 {
		return "0s"
	}
	return text.String()
}

// ParseMoment parses a time in RFC 3339 and truncates it to the second.
func ParseMoment(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid time %q: must be in RFC 3339, such as 2027-01-31T00:00:00Z", text)
	}
	return t.UTC().Truncate(time.Second), nil
}

// Deadline is the time from which a key has expired, or never. The zero value has always passed: a key whose deadline was
// never set must not be valid forever. Deadlines are equal if == says so.
type Deadline struct {
	// at is in seconds since the zero [time.Time], which is before all times of keys. A verifier has a deadline in memory for
	// each token, so it is kept small.
	at int64
}

const (
	never = math.MaxInt64
	// unixAtZero is the Unix time of the zero [time.Time].
	unixAtZero = -62135596800
)

// Never returns the deadline of a key that does not expire.
func Never() Deadline { return Deadline{never} }

// At returns a deadline at t, truncated to the second.
func At(t time.Time) Deadline { return Deadline{t.Unix() - unixAtZero} }

// Time returns the time of the deadline, or false if d is never.
func (d Deadline) Time() (time.Time, bool) {
	if d.at == never {
		return time.Time{}, false
	}
	return time.Unix(d.at+unixAtZero, 0).UTC(), true
}

// Passed reports whether the deadline is at or before now.
func (d Deadline) Passed(now time.Time) bool { return now.Unix()-unixAtZero >= d.at }

// WarnFrom returns the time from which a key that was issued at start counts as expiring: the last fifth of its lifetime, at
// most 14 days. It returns false if d is never.
func (d Deadline) WarnFrom(start time.Time) (time.Time, bool) {
	at, ends := d.Time()
	if !ends {
		return time.Time{}, false
	}
	warning := max(0, min(at.Sub(start)/warnFraction, maxWarning))
	return at.Add(-warning).Truncate(time.Second), true
}

// CollectAt returns the time from which an expired key may be deleted: ttl after its deadline or after it was marked as
// expired, whichever is later. So the owner of a key that had already expired when it was created still sees it.
func CollectAt(deadline, marked time.Time, ttl time.Duration) time.Time {
	if marked.Before(deadline) {
		marked = deadline
	}
	return marked.UTC().Truncate(time.Second).Add(ttl)
}
