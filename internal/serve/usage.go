package serve

import (
	"time"

	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Usage is an [Observer] that marks the token of each accepted request as used. It only writes to memory, and at most once a
// second for each token.
type Usage struct{ meter usage.Meter }

// NewUsage returns a [Usage] that measures times with the meter.
func NewUsage(meter usage.Meter) *Usage { return &Usage{meter} }

// Protocol implements [Observer].
func (u *Usage) Protocol(string) ProtocolObserver { return u }

// Decided implements [ProtocolObserver].
func (u *Usage) Decided(decision verify.Decision, at time.Time, _ time.Duration) func(Asked) {
	if decision.Allowed() && decision.Key.Use != nil {
		decision.Key.Use.Use(u.meter.Second(at))
	}
	return nil
}

// Panicked implements [ProtocolObserver].
func (*Usage) Panicked(any) {}
