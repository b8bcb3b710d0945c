// Package expiry is arithmetic on times given as arguments; nobody here reads a clock.
//
// All of it is in whole seconds, the resolution of a time in a Kubernetes status: a moment is cut to its second before anything
// is computed from it, so that what is stored and what was computed can't differ.
package expiry

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

const (
	// MaxDuration is the longest duration that a key may name: ten years of 365 days.
	MaxDuration = 3650 * day

	day = 24 * time.Hour

	// A key is expiring in the last fifth of its life, but for two weeks at most: enough for a person to notice and
	// short enough to mean something.
	warnFraction = 5
	maxWarning   = 14 * day
)

var durationGrammar = regexp.MustCompile(`^(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?$`)

// ParseDuration reads days, hours, minutes and seconds in this order, each optional, such as 90d, 12h30m or 0s; at most
// MaxDuration. It accepts what the schema of the CRD accepts for the type Duration.
func ParseDuration(text string) (time.Duration, error) {
	groups := durationGrammar.FindStringSubmatch(text)
	if text == "" || groups == nil {
		return 0, fmt.Errorf("%q is no duration: want days, hours, minutes and seconds in this order, such as 90d or 12h30m", text)
	}
	var seconds int64
	for i, unit := range []time.Duration{day, time.Hour, time.Minute, time.Second} {
		if groups[i+1] == "" {
			continue
		}
		// At most nine digits, so that neither this nor the sum can overflow.
		n, err := strconv.ParseInt(groups[i+1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no duration: %w", text, err)
		}
		seconds += n * int64(unit/time.Second)
	}
	if seconds > int64(MaxDuration/time.Second) {
		return 0, fmt.Errorf("%q is too long: at most 3650d", text)
	}
	return time.Duration(seconds) * time.Second, nil
}

// ParseMoment reads a moment in RFC 3339 and cuts it to its second.
func ParseMoment(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no moment in RFC 3339, such as 2027-01-31T00:00:00Z", text)
	}
	return t.UTC().Truncate(time.Second), nil
}

// Deadline is the moment from which a key is dead, or never. The zero value has passed at any time: what was
// never set must not live for ever.
type Deadline struct {
	at    time.Time
	never bool
}

// Never is the deadline of a key that does not expire.
func Never() Deadline { return Deadline{never: true} }

// At is a deadline at a moment, cut to its second.
func At(t time.Time) Deadline { return Deadline{at: t.UTC().Truncate(time.Second)} }

// Time is the deadline's moment; false means never.
func (d Deadline) Time() (time.Time, bool) { return d.at, !d.never }

// Passed tells whether a key with this deadline is dead at now: at the deadline itself it is.
func (d Deadline) Passed(now time.Time) bool { return !d.never && !now.Before(d.at) }

// WarnFrom is the moment from which a key that was born at start counts as expiring: the last fifth of its life, at
// most 14 days. False means never.
func (d Deadline) WarnFrom(start time.Time) (time.Time, bool) {
	if d.never {
		return time.Time{}, false
	}
	warning := max(0, min(d.at.Sub(start)/warnFraction, maxWarning))
	return d.at.Add(-warning).Truncate(time.Second), true
}

// CollectAt is the moment from which an expired key may be deleted: ttl after it became known to be expired, which is
// the later of its deadline and the moment at which it was marked, so that a key which was born dead is still seen by
// its owner.
func CollectAt(deadline, marked time.Time, ttl time.Duration) time.Time {
	if marked.Before(deadline) {
		marked = deadline
	}
	return marked.UTC().Truncate(time.Second).Add(ttl)
}
