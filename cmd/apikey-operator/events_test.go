package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

func TestLimitedRecorderDropsOnlyNormalEvents(t *testing.T) {
	const n = 3 * eventBurst
	sink := events.NewFakeRecorder(2 * n)
	recorder := newLimitedRecorder(sink, prometheus.NewRegistry())
	for range n {
		recorder.Eventf(&v1alpha1.ApiKey{}, nil, corev1.EventTypeNormal, "Issued", "Issue", "note")
	}
	normal := len(sink.Events)
	if normal < eventBurst || normal == n {
		t.Errorf("%d of %d normal events passed, want some", normal, n)
	}
	for range n {
		recorder.Eventf(&v1alpha1.ApiKey{}, nil, corev1.EventTypeWarning, "SecretConflict", "Issue", "note")
	}
	if warnings := len(sink.Events) - normal; warnings != n {
		t.Errorf("%d of %d warnings passed, want all", warnings, n)
	}
	var metric dto.Metric
	if err := recorder.dropped.Write(&metric); err != nil {
		t.Fatal(err)
	}
	if dropped := int(metric.GetCounter().GetValue()); dropped != n-normal {
		t.Errorf("events_dropped_total is %d, want %d", dropped, n-normal)
	}
}
