package indexing

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "apikey_verifier"

// Collector tells of an index and its load.
type Collector struct {
	loader                                    *Loader
	keys, loaded, loadTime, watchAge, doubled *prometheus.Desc
}

// NewCollector returns the metrics of what a loader feeds.
func NewCollector(l *Loader) *Collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, nil, nil)
	}
	return &Collector{
		loader:   l,
		keys:     desc("index_keys", "Digests that can be found."),
		loaded:   desc("index_loaded", "1 once all ApiKeys have been loaded, before that 0 and everything is refused as NotReady."),
		loadTime: desc("index_load_seconds", "How long the first load took; absent until it is over."),
		watchAge: desc("watch_age_seconds", "Time since the API server was last heard of: an event, or a bookmark about once a minute."),
		doubled:  desc("duplicate_digests", "Digests that more than one ApiKey has, or had; none of these keys is accepted. Should be 0."),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
	x := c.loader.index
	gauge(c.keys, float64(x.Size()))
	loaded := 0.0
	if x.Loaded() {
		loaded = 1
	}
	gauge(c.loaded, loaded)
	gauge(c.watchAge, x.Age(time.Now()).Seconds())
	gauge(c.doubled, float64(x.Duplicates()))
	if took, ok := c.loader.LoadTime(); ok {
		gauge(c.loadTime, took.Seconds())
	}
}
