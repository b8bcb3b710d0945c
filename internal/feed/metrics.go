package feed

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// Collector tells of an index and its load.
type Collector struct {
	loader                                    *Loader
	keys, loaded, loadTime, watchAge, doubled *prometheus.Desc
}

// NewCollector returns the metrics of what a loader feeds.
func NewCollector(l *Loader) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(monitoring.Verifier, "", name), help, labels, nil)
	}
	return &Collector{
		loader:   l,
		keys:     desc("index_keys", "Digests that can be found."),
		loaded:   desc("index_loaded", "1 once all has been loaded that may be read, before that 0 and everything is refused as NotReady."),
		loadTime: desc("index_load_seconds", "How long the first load took; absent until it is over."),
		watchAge: desc("watch_age_seconds", "Time since a watch was last heard of, by an event or a bookmark about once a minute, or since the start "+
			"if it never was. The source is apiroles, apikeys, or apikeys/NAMESPACE for each of --namespaces.", "source"),
		doubled: desc("duplicate_digests", "Digests that more than one ApiKey has, or had; none of these keys is accepted. Should be 0."),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	x := c.loader.index
	gauge(c.keys, float64(x.Size()))
	loaded := 0.0
	if x.Loaded() {
		loaded = 1
	}
	gauge(c.loaded, loaded)
	now := time.Now()
	for _, r := range c.loader.reflected {
		gauge(c.watchAge, r.fed.Age(now).Seconds(), r.name())
	}
	gauge(c.doubled, float64(x.Duplicates()))
	if took, ok := c.loader.LoadTime(); ok {
		gauge(c.loadTime, took.Seconds())
	}
}
