// Package rotation reads requests to replace the token of a key, and computes when a rotation is due and how long the token
// before it stays valid. It must not read a clock: times are arguments.
package rotation

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

const (
	// DefaultOverlap is the overlap if neither the request nor the spec has one.
	DefaultOverlap = 24 * time.Hour
	// MaxOverlap is the longest overlap.
	MaxOverlap = 30 * 24 * time.Hour
	// MinInterval is the time between two rotations of a key on request.
	MinInterval = time.Minute

	// MaxValue is the maximum length in bytes of the value of a request. Longer values are never valid.
	MaxValue = 128
	// maxID is the maximum length in bytes of the ID of a request.
	maxID = 64
	// maxHandled is the number of requests that are remembered.
	maxHandled = 16

	// maxJitter is the part of the period by which a scheduled rotation may come early.
	maxJitter = 0.1
)

// Request asks for a rotation.
type Request struct {
	// ID distinguishes the request from others of the same key.
	ID string
	// Overlap is how long the token before it stays valid. It counts only if HasOverlap is set.
	Overlap    time.Duration
	HasOverlap bool
}

// ParseRequest parses ID or ID;overlap=DURATION. An ID has 1 to 64 printable ASCII characters, but no semicolon.
func ParseRequest(value string) (Request, error) {
	id, option, hasOption := strings.Cut(value, ";")
	if err := checkID(id); err != nil {
		return Request{}, fmt.Errorf("invalid request %q: %w", clip(value), err)
	}
	if !hasOption {
		return Request{ID: id}, nil
	}
	text, isOverlap := strings.CutPrefix(option, "overlap=")
	if !isOverlap {
		return Request{}, fmt.Errorf("invalid request %q: what follows the semicolon must be overlap= and a duration, such as ;overlap=1h",
			clip(value))
	}
	overlap, err := expiry.ParseDuration(text)
	if err == nil && overlap > MaxOverlap {
		err = fmt.Errorf("invalid duration %q: must be at most 30d", text)
	}
	if err != nil {
		return Request{}, fmt.Errorf("invalid request %q: overlap: %w", clip(value), err)
	}
	return Request{ID: id, Overlap: overlap, HasOverlap: true}, nil
}

// ValidateRetirement returns an error unless value is a valid request to end a retiring token: an ID as in [ParseRequest].
func ValidateRetirement(value string) error {
	if err := checkID(value); err != nil {
		return fmt.Errorf("invalid request %q: %w", clip(value), err)
	}
	return nil
}

func checkID(id string) error {
	printable := !strings.ContainsFunc(id, func(c rune) bool { return c < ' ' || c > '~' || c == ';' })
	if len(id) == 0 || len(id) > maxID || !printable {
		return fmt.Errorf("the ID must have 1 to %d printable ASCII characters, but no semicolon, such as 2027-01-31", maxID)
	}
	return nil
}

// clip limits the length of a value in a message.
func clip(value string) string {
	if len(value) > MaxValue {
		return strings.ToValidUTF8(value[:MaxValue], "") + "..."
	}
	return value
}

// Handled appends a request to those that were handled, and drops the oldest if there are too many.
func Handled(handled []string, value string) []string {
	if value == "" || slices.Contains(handled, value) {
		return handled
	}
	handled = append(slices.Clone(handled), value)
	return handled[max(0, len(handled)-maxHandled):]
}

// Overlap returns the overlap that a spec asks for. every is the period of rotations, or 0 if there is none. overlap is that
// of the spec, or negative if it has none.
func Overlap(every, overlap time.Duration) time.Duration {
	switch {
	case overlap >= 0:
		return overlap
	case every > 0:
		return min(DefaultOverlap, every/2).Truncate(time.Second)
	default:
		return DefaultOverlap
	}
}

// Next returns when the next scheduled rotation is due: a period after last, or up to a tenth of the period earlier, so that keys
// that were created together don't rotate together. seed is uniformly random, and equal for equal keys.
func Next(last time.Time, every time.Duration, seed [8]byte) time.Time {
	fraction := float64(binary.BigEndian.Uint64(seed[:])) / (1 << 64)
	early := time.Duration(fraction * maxJitter * float64(every))
	return last.Add(every - early).UTC().Truncate(time.Second)
}
