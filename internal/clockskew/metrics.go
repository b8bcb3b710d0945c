package clockskew

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

var skewDesc = prometheus.NewDesc(monitoring.Operator+"_clock_skew_seconds",
	"The operator's time minus the API server's, in seconds. Absent while it can't be measured.", nil, nil)

// Collector measures the clock skew on every scrape, so that an alert ends with its cause. It also does so on replicas that
// are not the leader, so that a wrong clock is visible before they become the leader.
type Collector struct {
	skew func(context.Context) (time.Duration, error)
}

// NewCollector returns a collector that calls skew.
func NewCollector(skew func(context.Context) (time.Duration, error)) *Collector {
	return &Collector{skew: skew}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) { descs <- skewDesc }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	skew, err := c.skew(ctx)
	if err != nil {
		return // an invalid metric would fail the whole scrape
	}
	metrics <- prometheus.MustNewConstMetric(skewDesc, prometheus.GaugeValue, skew.Seconds())
}
