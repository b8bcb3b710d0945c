package clockskew

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

var skewDesc = prometheus.NewDesc(monitoring.Operator+"_clock_skew_seconds",
	"This machine's time less the API server's. Absent while it can't be measured.", nil, nil)

// Collector measures the clock's skew whenever it is scraped, so that an alert ends with its cause. It does so on a replica that
// waits for its turn as well, before that one decides on anything.
type Collector struct {
	skew func(context.Context) (time.Duration, error)
}

// NewCollector returns a collector that asks skew.
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
		return // an invalid metric would cost the whole scrape
	}
	metrics <- prometheus.MustNewConstMetric(skewDesc, prometheus.GaugeValue, skew.Seconds())
}
