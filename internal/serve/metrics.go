package serve

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Metrics is an [Observer] that counts decisions and measures how long they take.
type Metrics struct {
	panics    prometheus.Counter
	decisions *prometheus.CounterVec
	latency   *prometheus.HistogramVec
}

// NewMetrics returns [Metrics] and registers them. It panics if they are already registered.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: monitoring.Verifier, Name: "panics_total",
			Help: "Requests that were refused because of a bug in the verifier. Should be 0.",
		}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: monitoring.Verifier, Name: "decisions_total",
			Help: "Decisions by protocol and result. Every result other than Allowed is a refusal.",
		}, []string{"protocol", "result"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: monitoring.Verifier, Name: "decision_duration_seconds",
			Help:    "How long a decision takes, from the parsed request to the result.",
			Buckets: prometheus.ExponentialBuckets(250e-9, 4, 8), // 250 ns to 4 ms
		}, []string{"protocol"}),
	}
	registry.MustRegister(m.panics, m.decisions, m.latency)
	return m
}

// Protocol implements [Observer].
func (m *Metrics) Protocol(name string) ProtocolObserver {
	p := &protocolMetrics{panics: m.panics, latency: m.latency.WithLabelValues(name)}
	for result := range verify.Result(verify.Results) {
		p.decisions[result] = m.decisions.WithLabelValues(name, result.String())
	}
	return p
}

// protocolMetrics holds the time series of one protocol, so that requests don't have to look them up by
// label.
type protocolMetrics struct {
	panics    prometheus.Counter
	decisions [verify.Results]prometheus.Counter
	latency   prometheus.Observer
}

// Decided implements [ProtocolObserver].
func (p *protocolMetrics) Decided(decision verify.Decision, _ time.Time, took time.Duration) func(Asked) {
	p.latency.Observe(took.Seconds())
	p.decisions[decision.Result].Inc()
	return nil
}

// Panicked implements [ProtocolObserver].
func (p *protocolMetrics) Panicked(any) { p.panics.Inc() }
