package issuing

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// Metrics are the metrics of this controller. Their labels have few values, and never contain the name of a key.
type Metrics struct {
	issued, expired, withdrawn, conflicts, suspended, resumed prometheus.Counter
	refused                                                   *prometheus.CounterVec
	rotated, rotationsBlocked                                 *prometheus.CounterVec
	issueSeconds, expiryLateness, rotationLateness            prometheus.Histogram
}

// Values of the label trigger of rotations_total.
const (
	triggerRequest  = "request"
	triggerSchedule = "schedule"
)

// NewMetrics creates the metrics and registers them. It panics if they are already registered.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: monitoring.Operator, Name: name, Help: help})
	}
	m := &Metrics{
		issued:    counter("issued_total", "Keys that were issued: their token was delivered and confirmed."),
		expired:   counter("expired_total", "Keys that were marked as expired."),
		withdrawn: counter("secrets_withdrawn_total", "Token Secrets that were deleted because spec.secret.revealFor had passed."),
		suspended: counter("suspended_total", "Times that an issued key was suspended."),
		resumed:   counter("resumed_total", "Times that a suspended key was resumed."),
		conflicts: counter("secret_conflicts_total", "Times that the name of a key's Secret was taken by a Secret that does not belong to the key."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: monitoring.Operator, Name: "refused_total",
			Help: "Times that a key was refused: a role is unknown, no policy allows the key, or the API server refuses its Secret. " +
				"reason is the reason of the condition Ready.",
		}, []string{"reason"}),
		rotated: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: monitoring.Operator, Name: "rotations_total",
			Help: "Times that the token of a key was replaced. trigger is request or schedule.",
		}, []string{"trigger"}),
		rotationsBlocked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: monitoring.Operator, Name: "rotations_blocked_total",
			Help: "Times that a rotation was found to be blocked. reason is the reason of the condition RotationBlocked.",
		}, []string{"reason"}),
		issueSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: monitoring.Operator, Name: "issue_duration_seconds",
			Help: "Time from the creation of a key to its confirmed delivery. creationTimestamp has whole seconds, so values below one " +
				"second are not exact.",
			Buckets: []float64{1, 2, 5, 10, 30, 60, 300, 1800, 3600},
		}),
		expiryLateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: monitoring.Operator, Name: "expiry_lateness_seconds",
			Help:    "Time from the expiry of a key until it was marked as expired. Verifiers do not wait for the mark.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2, 5, 10, 30, 60, 300, 3600},
		}),
		rotationLateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: monitoring.Operator, Name: "rotation_lateness_seconds",
			Help:    "Time from when a rotation by schedule was due until the new token was confirmed.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2, 5, 10, 30, 60, 300, 3600},
		}),
	}
	registry.MustRegister(m.issued, m.expired, m.withdrawn, m.conflicts, m.suspended, m.resumed, m.refused, m.rotated, m.rotationsBlocked,
		m.issueSeconds, m.expiryLateness, m.rotationLateness)
	// So that alerts see 0 instead of no series.
	for _, trigger := range []string{triggerRequest, triggerSchedule} {
		m.rotated.WithLabelValues(trigger)
	}
	for _, reason := range v1alpha1.RotationBlockedReasons() {
		m.rotationsBlocked.WithLabelValues(string(reason))
	}
	for _, reason := range []v1alpha1.Reason{v1alpha1.ReasonUnknownRole, v1alpha1.ReasonNotAllowed, v1alpha1.ReasonDeliveryRefused} {
		m.refused.WithLabelValues(string(reason))
	}
	return m
}
