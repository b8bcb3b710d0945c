package recording

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/usage"
)

// Metrics are the metrics of this controller.
type Metrics struct {
	writes           *prometheus.CounterVec
	unrecorded, wait *prometheus.Desc

	// ledger is nil until the reconciler is added to a manager.
	ledger *usage.Ledger
	clock  clock.PassiveClock
}

// Values of the label result.
const (
	recorded = "recorded"
	conflict = "conflict"
	failed   = "failed"
)

// NewMetrics creates the metrics and registers them. It panics if they are already registered.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: monitoring.Operator, Name: "usage_writes_total",
			Help: "Attempts to write when a key was last used, by result: recorded, conflict (something else was written to the key " +
				"meanwhile; it is tried again) or failed. Limited by --usage-writes-per-second.",
		}, []string{"result"}),
		unrecorded: prometheus.NewDesc(monitoring.Operator+"_usage_unrecorded",
			"Number of keys whose last use was reported but is not recorded yet. Reported by the leader; 0 on other replicas.", nil, nil),
		wait: prometheus.NewDesc(monitoring.Operator+"_usage_unrecorded_seconds",
			"How long a key has waited for its last use to be recorded, the longest of all. Reported by the leader; 0 on other replicas.", nil, nil),
	}
	for _, result := range []string{recorded, conflict, failed} {
		m.writes.WithLabelValues(result) // so that alerts see 0 instead of no series
	}
	registry.MustRegister(m.writes, m)
	return m
}

func (m *Metrics) watch(ledger *usage.Ledger, clock clock.PassiveClock) {
	m.ledger, m.clock = ledger, clock
}

func (m *Metrics) count(err error) {
	result := recorded
	switch {
	case apierrors.IsConflict(err):
		result = conflict
	case err != nil:
		result = failed
	}
	m.writes.WithLabelValues(result).Inc()
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- m.unrecorded
	descs <- m.wait
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	keys, wait := 0, 0.0
	if m.ledger != nil {
		var since time.Time
		if keys, since = m.ledger.Waiting(); keys > 0 {
			wait = m.clock.Since(since).Seconds()
		}
	}
	metrics <- prometheus.MustNewConstMetric(m.unrecorded, prometheus.GaugeValue, float64(keys))
	metrics <- prometheus.MustNewConstMetric(m.wait, prometheus.GaugeValue, wait)
}
