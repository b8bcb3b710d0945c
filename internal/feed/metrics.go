package feed

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// Collector is a [prometheus.Collector] for the metrics of a [Loader] and its index.
type Collector struct {
	loader                                       *Loader
	keys, loaded, loadTime, watchAge, duplicates *prometheus.Desc
}

// NewCollector returns the metrics of a loader.
func NewCollector(l *Loader) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(monitoring.Verifier, "", name), help, labels, nil)
	}
	return &Collector{
		loader:   l,
		keys:     desc("index_keys", "Number of token digests in the index."),
		loaded:   desc("index_loaded", "1 after the first load of everything that the verifier may read is complete, otherwise 0. Until then, every request is refused as NotReady."),
		loadTime: desc("index_load_seconds", "How long the first load took. Absent until it is complete."),
		watchAge: desc("watch_age_seconds", "Time since the last event or bookmark of a watch, or since the start if there was none. The API server sends a bookmark "+
			"about once a minute. The source is apiroles, apikeys, or apikeys/NAMESPACE for each of --namespaces.", "source"),
		duplicates: desc("duplicate_digests", "Number of digests that more than one ApiKey has or had. None of these keys is accepted. Should be 0."),
	}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements [prometheus.Collector].
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
	for _, r := range c.loader.watches {
		gauge(c.watchAge, r.feed.Age(now).Seconds(), r.name())
	}
	gauge(c.duplicates, float64(x.Duplicates()))
	if took, ok := c.loader.LoadTime(); ok {
		gauge(c.loadTime, took.Seconds())
	}
}
