package main

import (
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// Events are limited in favor of keys: to issue a key takes three writes, an event would be a fourth, and queued events use memory.
const (
	eventQPS   = 10
	eventBurst = 100
)

// limitedRecorder drops and counts events of type Normal above a rate; the status of the key has the same information. It
// never drops warnings.
type limitedRecorder struct {
	events.EventRecorder
	limiter flowcontrol.PassiveRateLimiter
	dropped prometheus.Counter
}

func newLimitedRecorder(recorder events.EventRecorder, registry prometheus.Registerer) *limitedRecorder {
	dropped := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: monitoring.Operator, Name: "events_dropped_total",
		Help: "Events of type Normal that were dropped because too many keys changed at once.",
	})
	registry.MustRegister(dropped)
	return &limitedRecorder{
		EventRecorder: recorder,
		limiter:       flowcontrol.NewTokenBucketPassiveRateLimiter(eventQPS, eventBurst),
		dropped:       dropped,
	}
}

// Eventf implements events.EventRecorder.
func (r *limitedRecorder) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	if eventType == corev1.EventTypeNormal && !r.limiter.TryAccept() {
		r.dropped.Inc()
		return
	}
	r.EventRecorder.Eventf(regarding, related, eventType, reason, action, note, args...)
}
