package issuing

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

const metricsNamespace = "apikey_operator"

// Metrics are the counters of this controller. Their labels have few values, and never a key's name.
type Metrics struct {
	issued, expired, withdrawn, conflicts prometheus.Counter
	refused                               *prometheus.CounterVec
	issueSeconds, expiryLateness          prometheus.Histogram
	clockSkew                             prometheus.Gauge
}

// NewMetrics makes the metrics and registers them. It panics where they are registered already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: metricsNamespace, Name: name, Help: help})
	}
	m := &Metrics{
		issued:    counter("issued_total", "Keys whose token was delivered and confirmed."),
		expired:   counter("expired_total", "Keys that were marked as expired."),
		withdrawn: counter("secrets_withdrawn_total", "Secrets deleted because spec.secret.revealFor had passed."),
		conflicts: counter("secret_conflicts_total", "Times that a key came upon a Secret that is not its own."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricsNamespace, Name: "refused_total",
			Help: "Times that a key began to wait for a role or a policy, by the reason of its condition Ready.",
		}, []string{"reason"}),
		issueSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: metricsNamespace, Name: "issue_duration_seconds",
			Help: "From a key's creation to its confirmed delivery. A creationTimestamp is whole seconds, so a fast issue reads " +
				"as anything up to one second.",
			Buckets: []float64{1, 2, 5, 10, 30, 60, 300, 1800, 3600},
		}),
		expiryLateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: metricsNamespace, Name: "expiry_lateness_seconds",
			Help:    "From a key's deadline to the moment that it was marked as expired. A verifier does not wait for the mark.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2, 5, 10, 30, 60, 300, 3600},
		}),
		clockSkew: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "clock_skew_seconds",
			Help: "This machine's time less the API server's, when it was last measured.",
		}),
	}
	registry.MustRegister(m.issued, m.expired, m.withdrawn, m.conflicts, m.refused, m.issueSeconds, m.expiryLateness, m.clockSkew)
	for _, reason := range refusals {
		m.refused.WithLabelValues(string(reason)) // so that an alert sees a zero and not an absence
	}
	return m
}

var (
	keysDesc = prometheus.NewDesc(metricsNamespace+"_keys",
		"ApiKeys by state: the reason of their condition Ready, or Unseen where it has none. Reported by the leader.",
		[]string{"state"}, nil)
	outOfPolicyDesc = prometheus.NewDesc(metricsNamespace+"_keys_out_of_policy",
		"ApiKeys that work but would not be issued today. Reported by the leader.", nil, nil)
	keyExpiryDesc = prometheus.NewDesc(metricsNamespace+"_key_expiry_timestamp_seconds",
		"When a key that is in use expires, as a Unix time. One series a key: off unless --expiry-metric-per-key. Reported by the leader.",
		[]string{"namespace", "name"}, nil)
)

// Collector reads the state of the fleet from the cache whenever it is scraped, so that it can't drift from it.
type Collector struct {
	reader  client.Reader
	elected <-chan struct{}
	perKey  bool
}

// NewCollector returns a collector that reports once elected is closed. perKey adds one series for each key that is in use.
func NewCollector(reader client.Reader, elected <-chan struct{}, perKey bool) *Collector {
	return &Collector{reader: reader, elected: elected, perKey: perKey}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- keysDesc
	descs <- outOfPolicyDesc
	descs <- keyExpiryDesc
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	select {
	case <-c.elected:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	keys := &v1alpha1.ApiKeyList{}
	if err := c.reader.List(ctx, keys, client.UnsafeDisableDeepCopy); err != nil {
		metrics <- prometheus.NewInvalidMetric(keysDesc, err)
		return
	}
	// Every state is reported, so that an alert sees a zero and not an absence.
	states := map[string]int{
		"Unseen":                              0,
		string(v1alpha1.ReasonIssuing):        0,
		string(v1alpha1.ReasonIssued):         0,
		string(v1alpha1.ReasonExpired):        0,
		string(v1alpha1.ReasonSecretConflict): 0,
		string(v1alpha1.ReasonUnknownRole):    0,
		string(v1alpha1.ReasonNotAllowed):     0,
	}
	outOfPolicy := 0
	for i := range keys.Items {
		key := &keys.Items[i]
		state := string(readyReason(key))
		if state == "" {
			state = "Unseen"
		}
		states[state]++
		if hasCondition(key, v1alpha1.ConditionOutOfPolicy) {
			outOfPolicy++
		}
		if c.perKey && isReady(key) && key.Status.ExpiresAt != nil {
			metrics <- prometheus.MustNewConstMetric(keyExpiryDesc, prometheus.GaugeValue,
				float64(key.Status.ExpiresAt.Unix()), key.Namespace, key.Name)
		}
	}
	metrics <- prometheus.MustNewConstMetric(outOfPolicyDesc, prometheus.GaugeValue, float64(outOfPolicy))
	for state, n := range states {
		metrics <- prometheus.MustNewConstMetric(keysDesc, prometheus.GaugeValue, float64(n), state)
	}
}
