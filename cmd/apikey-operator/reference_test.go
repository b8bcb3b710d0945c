package main

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/callers"
	"github.com/apikey-operator/apikey-operator/internal/clockskew"
	"github.com/apikey-operator/apikey-operator/internal/fleet"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/operator"
	"github.com/apikey-operator/apikey-operator/internal/reference"
)

func TestReferenceOfFlags(t *testing.T) {
	reference.Section(t, "flags.md", component, reference.Flags(command().Flags()))
}

// oneKey is a cluster with an issued key, for the metrics that tell of each key.
type oneKey struct{ client.Reader }

func (oneKey) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	keys := list.(*v1alpha1.ApiKeyList) //nolint:forcetypeassert // the collector lists no other
	key := v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "key"}}
	key.Status.ExpiresAt = &metav1.Time{Time: time.Now().Add(time.Hour)}
	key.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: string(v1alpha1.ReasonIssued)}}
	keys.Items = append(keys.Items, key)
	return nil
}

// What run registers. test/monitoring holds the page against what the binary exposes.
func TestReferenceOfMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	newLimitedRecorder(nil, registry)
	operator.New(operator.Parts{Registry: registry})
	elected := make(chan struct{})
	close(elected)
	registry.MustRegister(
		fleet.NewCollector(oneKey{}, elected, clock.RealClock{}, true),
		clockskew.NewCollector(func(context.Context) (time.Duration, error) { return 0, nil }),
	)
	callers.NewPutOff(registry, monitoring.Operator).WithLabelValues("metrics")
	reference.Section(t, "metrics.md", component, reference.Metrics(t, registry))
}
