package clockskew

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestSkewIsMeasuredWhenScraped(t *testing.T) {
	skew, failure := 90*time.Second, error(nil)
	collector := NewCollector(func(context.Context) (time.Duration, error) { return skew, failure })
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	expect := func(want ...float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []float64
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				got = append(got, metric.GetGauge().GetValue())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	expect(90)
	skew = -time.Second
	expect(-1)
	failure = errors.New("no answer")
	expect()
}
