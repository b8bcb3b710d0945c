// Package usage decides what is reported and recorded about the use of keys. Don't read a clock here, don't decide whether
// a request may pass, and don't depend on where keys come from.
package usage

import (
	"sync/atomic"
	"time"
)

// Second is a time in whole seconds since the origin of a [Meter], plus one. Zero means never.
type Second uint32

// Meter converts times to [Second]. Times with a monotonic reading stay comparable when the clock is set.
type Meter struct{ origin time.Time }

// NewMeter returns a meter that counts from origin.
func NewMeter(origin time.Time) Meter { return Meter{origin} }

// Second returns the second that a time lies in. A time before the origin counts as the origin.
func (m Meter) Second(at time.Time) Second {
	return Second(max(at.Sub(m.origin), 0)/time.Second) + 1 //nolint:gosec // wraps after 136 years
}

// Mark remembers when a token was last accepted, and which of its uses is recorded in the cluster. It is safe for
// concurrent use and takes no lock. All marks together are scanned often, so a mark has no pointer and 8 bytes. The zero
// value is a token that was never used.
//
// Marks of different tokens may share a cache line. That costs nothing measurable, because each is written at most once a
// second.
type Mark struct {
	used     atomic.Uint32 // a Second
	recorded atomic.Uint32 // Unix seconds, 0 for never; sufficient until 2106
}

// Use notes that the token was accepted. It stores at most once in each second, and never an earlier second than before.
func (m *Mark) Use(at Second) {
	for {
		before := m.used.Load()
		if Second(before) >= at || m.used.CompareAndSwap(before, uint32(at)) {
			return
		}
	}
}

// Used returns when the token was last accepted.
func (m *Mark) Used() Second { return Second(m.used.Load()) }

// Record notes the last use that the cluster has on record. The zero time means none.
func (m *Mark) Record(at time.Time) {
	seconds := uint32(0)
	if !at.IsZero() {
		seconds = uint32(at.Unix()) //nolint:gosec // sufficient until 2106
	}
	if m.recorded.Load() != seconds {
		m.recorded.Store(seconds)
	}
}

// Recorded returns the last use that the cluster has on record, or the zero time.
func (m *Mark) Recorded() time.Time {
	seconds := m.recorded.Load()
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}
