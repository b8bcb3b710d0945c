// Package fleet exports metrics about all keys of the cluster. It reads keys from the cache and must not change anything.
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

// shortLife is the lifetime below which a key is assumed to be replaced by a program. Such a key is expiring for less than a day,
// which is too short for people to act.
const shortLife = 5 * 24 * time.Hour

// unseen is the state of a key that the operator has not processed yet.
const unseen = "Unseen"

// expiringWithin are the time spans of keys_expiring, the longest last. None is longer than 14 days, when the condition Expiring
// begins at the earliest.
var expiringWithin = []struct {
	label string
	span  time.Duration
}{
	{"1d", 24 * time.Hour},
	{"7d", 7 * 24 * time.Hour},
	{"14d", 14 * 24 * time.Hour},
}

// lastUsed are the time spans of keys_last_used, the longest last.
var lastUsed = []struct {
	label string
	span  time.Duration
}{
	{"1d", 24 * time.Hour},
	{"7d", 7 * 24 * time.Hour},
	{"30d", 30 * 24 * time.Hour},
	{"90d", 90 * 24 * time.Hour},
}

// Further values of the label of keys_last_used.
const (
	longer  = "longer"
	notSeen = "NotSeen"
)

// unusedFor are the time spans of keys_unused.
var unusedFor = lastUsed[2:]

var (
	keysDesc = prometheus.NewDesc(monitoring.Operator+"_keys",
		"Number of ApiKeys by state: the reason of the condition Ready, or Unseen if a key has no such condition. Reported by the leader.",
		[]string{"state"}, nil)
	longestWaitDesc = prometheus.NewDesc(monitoring.Operator+"_longest_wait_seconds",
		"Age of the oldest pending ApiKey in each state, 0 if there is none. Reported by the leader.",
		[]string{"state"}, nil)
	expiringDesc = prometheus.NewDesc(monitoring.Operator+"_keys_expiring",
		"Number of ApiKeys with the condition Expiring that expire within a time span; 7d includes 1d. Keys with a lifetime of less "+
			"than five days are not counted. "+
			"Reported by the leader.",
		[]string{"within"}, nil)
	outOfPolicyDesc = prometheus.NewDesc(monitoring.Operator+"_keys_out_of_policy",
		"Number of issued ApiKeys with the condition OutOfPolicy: they work but would not be issued again. Reported by the leader.", nil, nil)
	rotationBlockedDesc = prometheus.NewDesc(monitoring.Operator+"_keys_rotation_blocked",
		"Number of ApiKeys with the condition RotationBlocked, by its reason: they keep their token. Reported by the leader.",
		[]string{"reason"}, nil)
	retiringDesc = prometheus.NewDesc(monitoring.Operator+"_retiring_tokens",
		"Number of tokens from before a rotation that are still accepted. Reported by the leader.", nil, nil)
	longestOverlapDesc = prometheus.NewDesc(monitoring.Operator+"_retiring_tokens_longest_seconds",
		"Longest time for which a token from before a rotation is still accepted, 0 if there is none. Reported by the leader.", nil, nil)
	retiringUsedDesc = prometheus.NewDesc(monitoring.Operator+"_retiring_tokens_used",
		"Number of retiring tokens with a recorded use since the rotation. when is anytime, or late: in the last tenth of their overlap. "+
			"Reported by the leader.", []string{"when"}, nil)
	lastUseDesc = prometheus.NewDesc(monitoring.Operator+"_keys_last_used",
		"Number of issued ApiKeys by the time since their last recorded use: within 1d, 7d, 30d, 90d or longer; each key is counted once. "+
			"NotSeen: no use is on record, which does not prove that there was none. Reported by the leader.",
		[]string{"within"}, nil)
	unusedDesc = prometheus.NewDesc(monitoring.Operator+"_keys_unused",
		"Number of issued ApiKeys whose last recorded use is longer ago than a time span, or that were issued longer ago and have no "+
			"recorded use; 30d includes 90d. Reported by the leader.",
		[]string{"for"}, nil)
	keyExpiryDesc = prometheus.NewDesc(monitoring.Operator+"_key_expiry_timestamp_seconds",
		"Unix time at which an issued key expires, one series per key. The label owner is the attribute of that name, empty if the key "+
			"has none. Exported only with --expiry-metric-per-key. Reported by the leader.",
		[]string{"namespace", "name", "owner"}, nil)
)

// Collector computes the metrics from the cache on every scrape, so that they can't differ from it.
type Collector struct {
	reader  client.Reader
	elected <-chan struct{}
	clock   clock.PassiveClock
	perKey  bool
}

// NewCollector returns a collector that reports metrics once elected is closed. perKey adds one series per issued key.
func NewCollector(reader client.Reader, elected <-chan struct{}, clock clock.PassiveClock, perKey bool) *Collector {
	return &Collector{reader: reader, elected: elected, clock: clock, perKey: perKey}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- keysDesc
	descs <- longestWaitDesc
	descs <- expiringDesc
	descs <- outOfPolicyDesc
	descs <- rotationBlockedDesc
	descs <- retiringDesc
	descs <- longestOverlapDesc
	descs <- retiringUsedDesc
	descs <- lastUseDesc
	descs <- unusedDesc
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
				float64(key.Status.ExpiresAt.Unix()), key.Namespace, key.Name, owner(key))
		}
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(outOfPolicyDesc, float64(fleet.outOfPolicy))
	gauge(retiringDesc, float64(fleet.retiring))
	gauge(longestOverlapDesc, fleet.longestOverlap.Seconds())
	for reason, n := range fleet.rotationBlocked {
		gauge(rotationBlockedDesc, float64(n), reason)
	}
	for state, n := range fleet.states {
		gauge(keysDesc, float64(n), state)
	}
	for state, wait := range fleet.longestWait {
		gauge(longestWaitDesc, wait.Seconds(), state)
	}
	for within, n := range fleet.expiring {
		gauge(expiringDesc, float64(n), within)
	}
	gauge(retiringUsedDesc, float64(fleet.retiringUsed), "anytime")
	gauge(retiringUsedDesc, float64(fleet.retiringUsedLate), "late")
	for within, n := range fleet.lastUsed {
		gauge(lastUseDesc, float64(n), within)
	}
	for span, n := range fleet.unused {
		gauge(unusedDesc, float64(n), span)
	}
}

// ownerAttribute is the attribute that labels the expiry metric. No other attribute does: an attribute can't be edited, so each key has one
// series for its whole life, whatever its author writes.
const ownerAttribute = "owner"

// maxOwner is the maximum length of the label owner, which is that of an attribute in the schema.
const maxOwner = 256

// owner returns the value of the label owner. A value that is longer than the schema allows is left out.
func owner(key *v1alpha1.ApiKey) string {
	value := string(key.Spec.Attributes[ownerAttribute])
	if len(value) > maxOwner {
		return ""
	}
	return value
}

// census is the state of all keys at one time. Its maps contain every state and time span, so that alerts see 0 instead of
// no series.
type census struct {
	states      map[string]int
	longestWait map[string]time.Duration
	expiring    map[string]int
	// retiringUsed are the retiring tokens that were used since the rotation, and retiringUsedLate those of them that were used in
	// the last tenth of their overlap.
	retiringUsed, retiringUsedLate int
	lastUsed                       map[string]int
	unused                         map[string]int
	outOfPolicy                    int

	rotationBlocked map[string]int
	retiring        int
	longestOverlap  time.Duration
}

func newCensus() *census {
	c := &census{
		states: map[string]int{}, longestWait: map[string]time.Duration{}, expiring: map[string]int{}, rotationBlocked: map[string]int{},
		lastUsed: map[string]int{longer: 0, notSeen: 0}, unused: map[string]int{},
	}
	for _, within := range lastUsed {
		c.lastUsed[within.label] = 0
	}
	for _, unused := range unusedFor {
		c.unused[unused.label] = 0
	}
	c.states[unseen], c.longestWait[unseen] = 0, 0
	for _, reason := range v1alpha1.ReadyReasons() {
		c.states[string(reason)] = 0
		if reason.IsPending() {
			c.longestWait[string(reason)] = 0
		}
	}
	for _, within := range expiringWithin {
		c.expiring[within.label] = 0
	}
	for _, reason := range v1alpha1.RotationBlockedReasons() {
		c.rotationBlocked[string(reason)] = 0
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
	c.countRotation(key, now)
	if key.IsReady() && key.IsIssued() {
		c.countUse(key, now)
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

func (c *census) countRotation(key *v1alpha1.ApiKey, now time.Time) {
	if blocked := key.Condition(v1alpha1.ConditionRotationBlocked); blocked != nil {
		c.rotationBlocked[blocked.Reason]++
	}
	if retiring := key.RetiringToken(); retiring != nil && now.Before(retiring.RetiresAt.Time) {
		c.retiring++
		c.longestOverlap = max(c.longestOverlap, retiring.RetiresAt.Sub(now))
		c.countRetiringUse(key.Status.Rotation)
	}
}

func (c *census) countUse(key *v1alpha1.ApiKey, now time.Time) {
	idle, label := now.Sub(key.LastUsedAt()), longer
	if key.LastUsedAt().IsZero() {
		idle, label = now.Sub(key.Status.IssuedAt.Time), notSeen
	}
	for _, within := range lastUsed {
		if label == longer && idle < within.span {
			label = within.label
		}
	}
	c.lastUsed[label]++
	for _, unused := range unusedFor {
		if idle >= unused.span {
			c.unused[unused.label]++
		}
	}
}

func (c *census) countRetiringUse(rotation *v1alpha1.ApiKeyRotationStatus) {
	used, rotated, retires := rotation.Retiring.LastUsedAt, rotation.RotatedAt, rotation.Retiring.RetiresAt
	if used == nil || rotated == nil || !used.After(rotated.Time) {
		return
	}
	c.retiringUsed++
	if overlap := retires.Sub(rotated.Time); !used.Time.Before(retires.Add(-overlap / 10)) {
		c.retiringUsedLate++
	}
}
