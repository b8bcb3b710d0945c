package issuing

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// Metrics are the counters of this controller. Their labels have few values, and never a key's name.
type Metrics struct {
	issued, expired, withdrawn, conflicts, suspended, resumed prometheus.Counter
	refused                                                   *prometheus.CounterVec
	issueSeconds, expiryLateness                              prometheus.Histogram
}

// NewMetrics makes the metrics and registers them. It panics where they are registered already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: monitoring.Operator, Name: name, Help: help})
	}
	m := &Metrics{
		issued:    counter("issued_total", "Keys whose token was delivered and confirmed."),
		expired:   counter("expired_total", "Keys that were marked as expired."),
		withdrawn: counter("secrets_withdrawn_total", "Secrets deleted because spec.secret.revealFor had passed."),
		suspended: counter("suspended_total", "Issued keys that were suspended."),
		resumed:   counter("resumed_total", "Suspended keys whose token is accepted again."),
		conflicts: counter("secret_conflicts_total", "Times that a key came upon a Secret that is not its own."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: monitoring.Operator, Name: "refused_total",
			Help: "Times that a key began to wait for a role, a policy, or an API server that refuses its Secret, by the reason of its " +
				"condition Ready.",
		}, []string{"reason"}),
		issueSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: monitoring.Operator, Name: "issue_duration_seconds",
			Help: "From a key's creation to its confirmed delivery. A creationTimestamp is whole seconds, so a fast issue reads " +
				"as anything up to one second.",
			Buckets: []float64{1, 2, 5, 10, 30, 60, 300, 1800, 3600},
		}),
		expiryLateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: monitoring.Operator, Name: "expiry_lateness_seconds",
			Help:    "From a key's deadline to the moment that it was marked as expired. A verifier does not wait for the mark.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2, 5, 10, 30, 60, 300, 3600},
		}),
	}
	registry.MustRegister(m.issued, m.expired, m.withdrawn, m.conflicts, m.suspended, m.resumed, m.refused, m.issueSeconds, m.expiryLateness)
	for _, reason := range []v1alpha1.Reason{v1alpha1.ReasonUnknownRole, v1alpha1.ReasonNotAllowed, v1alpha1.ReasonDeliveryRefused} {
		m.refused.WithLabelValues(string(reason)) // so that an alert sees a zero and not an absence
	}
	return m
}
