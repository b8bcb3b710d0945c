// Package fleet tells in metrics how all keys of the cluster are; it reads them from the cache, and changes nothing.
package fleet

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// A key made to live shorter than this is taken for one that a program replaces: its warning lasts less than a day, and no person could
// act on it.
const shortLife = 5 * 24 * time.Hour

// unseen is the state of a key that no operator has written a status of.
const unseen = "Unseen"

// The spans of keys_expiring, the longest last. None is longer than the longest warning, 14 days.
var expiringWithin = []struct {
	label string
	span  time.Duration
}{
	{"1d", 24 * time.Hour},
	{"7d", 7 * 24 * time.Hour},
	{"14d", 14 * 24 * time.Hour},
}

var (
	keysDesc = prometheus.NewDesc(monitoring.Operator+"_keys",
		"ApiKeys by state: the reason of their condition Ready, or Unseen where it has none. Reported by the leader.",
		[]string{"state"}, nil)
	longestWaitDesc = prometheus.NewDesc(monitoring.Operator+"_longest_wait_seconds",
		"Age of the oldest ApiKey in each state that waits to be issued, 0 where none does. Reported by the leader.",
		[]string{"state"}, nil)
	expiringDesc = prometheus.NewDesc(monitoring.Operator+"_keys_expiring",
		"ApiKeys with the condition Expiring, by how soon: 7d counts those of 1d too. Keys that live less than five days are left out. "+
			"Reported by the leader.",
		[]string{"within"}, nil)
	outOfPolicyDesc = prometheus.NewDesc(monitoring.Operator+"_keys_out_of_policy",
		"ApiKeys that work but would not be issued today. Reported by the leader.", nil, nil)
	keyExpiryDesc = prometheus.NewDesc(monitoring.Operator+"_key_expiry_timestamp_seconds",
		"When a key that is in use expires, as a Unix time. One series a key: off unless --expiry-metric-per-key. Reported by the leader.",
		[]string{"namespace", "name"}, nil)
)

// Collector reads the state of the fleet from the cache whenever it is scraped, so that it can't drift from it.
type Collector struct {
	reader  client.Reader
	elected <-chan struct{}
	clock   clock.PassiveClock
	perKey  bool
}

// NewCollector returns a collector that reports once elected is closed. perKey adds one series for each key that is in use.
func NewCollector(reader client.Reader, elected <-chan struct{}, clock clock.PassiveClock, perKey bool) *Collector {
	return &Collector{reader: reader, elected: elected, clock: clock, perKey: perKey}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- keysDesc
	descs <- longestWaitDesc
	descs <- expiringDesc
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
	fleet := newCensus()
	now := c.clock.Now()
	for i := range keys.Items {
		key := &keys.Items[i]
		fleet.count(key, now)
		if c.perKey && key.IsReady() && key.Status.ExpiresAt != nil {
			metrics <- prometheus.MustNewConstMetric(keyExpiryDesc, prometheus.GaugeValue,
				float64(key.Status.ExpiresAt.Unix()), key.Namespace, key.Name)
		}
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(outOfPolicyDesc, float64(fleet.outOfPolicy))
	for state, n := range fleet.states {
		gauge(keysDesc, float64(n), state)
	}
	for state, wait := range fleet.longestWait {
		gauge(longestWaitDesc, wait.Seconds(), state)
	}
	for within, n := range fleet.expiring {
		gauge(expiringDesc, float64(n), within)
	}
}

// census is the state of all keys at one moment. Its maps have every state and span, so that an alert sees a zero and not an absence.
type census struct {
	states      map[string]int
	longestWait map[string]time.Duration
	expiring    map[string]int
	outOfPolicy int
}

func newCensus() *census {
	c := &census{states: map[string]int{}, longestWait: map[string]time.Duration{}, expiring: map[string]int{}}
	for _, state := range []string{
		unseen, string(v1alpha1.ReasonIssuing), string(v1alpha1.ReasonSecretConflict), string(v1alpha1.ReasonUnknownRole),
		string(v1alpha1.ReasonNotAllowed), string(v1alpha1.ReasonDeliveryRefused),
	} {
		c.states[state], c.longestWait[state] = 0, 0
	}
	for _, state := range []v1alpha1.Reason{v1alpha1.ReasonIssued, v1alpha1.ReasonSuspended, v1alpha1.ReasonExpired} {
		c.states[string(state)] = 0
	}
	for _, within := range expiringWithin {
		c.expiring[within.label] = 0
	}
	return c
}

func (c *census) count(key *v1alpha1.ApiKey, now time.Time) {
	state := string(key.ReadyReason())
	if state == "" {
		state = unseen
	}
	c.states[state]++
	if key.Condition(v1alpha1.ConditionOutOfPolicy) != nil {
		c.outOfPolicy++
	}
	if !key.DeletionTimestamp.IsZero() {
		return
	}
	if longest, waits := c.longestWait[state]; waits {
		c.longestWait[state] = max(longest, now.Sub(key.CreationTimestamp.Time))
	}
	if key.Condition(v1alpha1.ConditionExpiring) == nil || key.Status.ExpiresAt == nil || !key.IsIssued() ||
		key.Status.ExpiresAt.Sub(key.Status.IssuedAt.Time) < shortLife {
		return
	}
	left := key.Status.ExpiresAt.Sub(now)
	for _, within := range expiringWithin {
		if left <= within.span {
			c.expiring[within.label]++
		}
	}
}
