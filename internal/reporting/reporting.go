// Package reporting reports to the API server which tokens were used, by an ApiKeyUsage. Don't write any other object here, and
// don't let a request to a verifier wait for it.
package reporting

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

const (
	// DefaultInterval is the shortest time between two reports.
	DefaultInterval = 10 * time.Second

	// maxInterval is the longest time between two attempts after failures.
	maxInterval = 5 * time.Minute

	// lastTimeout limits the report that is written when the process ends.
	lastTimeout = 3 * time.Second
)

// Options configure a [Reporter]. Logger and Metrics are required.
type Options struct {
	// Precision is how old the recorded use of a token may become before a later one is reported. It should be that of the
	// operator. Zero means [usage.DefaultPrecision].
	Precision time.Duration
	// Interval is the shortest time between two reports. Zero means [DefaultInterval].
	Interval time.Duration
	// Logger receives a line when reporting begins to fail, and when it works again.
	Logger logr.Logger
	// Metrics is where the metrics are registered.
	Metrics prometheus.Registerer
}

// Reporter reports the uses that an index has marks of, until the keys show that they are recorded.
type Reporter struct {
	client  *client
	index   *index.Index
	meter   usage.Meter
	options Options

	self       metav1.ObjectMeta // identifies the object; empty until it is known
	last       usage.Report
	anchor     anchor
	failing    bool
	unrecorded atomic.Int64
	reports    *prometheus.CounterVec
}

// anchor is a moment by the clock of the API server, and by the meter. So the wall clock of this machine doesn't matter.
type anchor struct {
	server time.Time
	second usage.Second
}

// at converts a second of the meter to the time of the API server.
func (a anchor) at(second usage.Second) time.Time {
	return a.server.Add(time.Duration(int64(second)-int64(a.second)) * time.Second)
}

// New returns a [Reporter]. The user of config must be a service account that may create and patch ApiKeyUsages in its own
// namespace. New returns an error if config is invalid or the metrics are already registered.
func New(config *rest.Config, x *index.Index, meter usage.Meter, options Options) (*Reporter, error) {
	c, err := newClient(config)
	if err != nil {
		return nil, err
	}
	if options.Precision == 0 {
		options.Precision = usage.DefaultPrecision
	}
	if options.Interval == 0 {
		options.Interval = DefaultInterval
	}
	r := &Reporter{client: c, index: x, meter: meter, options: options}
	r.reports = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: monitoring.Verifier, Name: "usage_reports_total",
		Help: "Attempts to report the use of keys to the API server, by result: written or failed. No decision depends on them.",
	}, []string{"result"})
	unrecorded := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: monitoring.Verifier, Name: "usage_unrecorded",
		Help: "Number of tokens whose last use was not recorded yet when that was last checked.",
	}, func() float64 { return float64(r.unrecorded.Load()) })
	for _, collector := range []prometheus.Collector{r.reports, unrecorded} {
		if err := options.Metrics.Register(collector); err != nil {
			return nil, err
		}
	}
	for _, result := range []string{written, failed} {
		r.reports.WithLabelValues(result) // so that alerts see 0 instead of no series
	}
	return r, nil
}

// Values of the label result.
const (
	written = "written"
	failed  = "failed"
)

// Run reports until ctx is done, and then writes a last report. It retries failures with backoff. It returns at once if the user of the
// configuration is not a service account.
func (r *Reporter) Run(ctx context.Context) {
	wait := r.options.Interval
	for {
		err := r.report(ctx)
		var notAccount notAccountError
		switch {
		case errors.As(err, &notAccount):
			r.options.Logger.Info("Not reporting the use of keys: only service accounts may report", "user", notAccount.user)
			return
		case err != nil && ctx.Err() == nil:
			r.reports.WithLabelValues(failed).Inc()
			if !r.failing {
				r.options.Logger.Error(err, "Failed to report the use of keys, retrying: requests are answered as always, but the last use of "+
					"keys is not recorded; check that config/crd, config/policy and config/verifier are applied")
			}
			r.failing = true
			wait = min(2*wait, maxInterval)
		case err == nil:
			if r.failing {
				r.options.Logger.Info("Reporting the use of keys works again")
			}
			r.failing = false
			wait = r.options.Interval
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTimeout)
			defer cancel()
			if err := r.report(last); err != nil {
				r.options.Logger.Info("Failed to report the last uses of keys", "problem", err.Error())
			}
			return
		}
	}
}

// report writes a report if the last one is outdated. The first one is always written: its answer has the API server's time.
func (r *Reporter) report(ctx context.Context) error {
	if r.self.Name == "" {
		self, err := r.client.identity(ctx)
		if err != nil {
			return err
		}
		r.self = self
	}
	if r.anchor.server.IsZero() {
		if err := r.write(ctx, nil); err != nil {
			return err
		}
	}
	selection := usage.NewSelection(usage.MaxUses)
	r.index.Used(func(key *verify.Key, digest *token.Digest) {
		use := usage.Use{
			Token: usage.Token{UID: key.UID, Digest: *digest}, Namespace: key.Namespace,
			At: r.anchor.at(key.Use.Used()), Recorded: key.Use.Recorded(), Retiring: key.Retiring,
		}
		if use.Due(r.options.Precision) {
			selection.Add(use)
		}
	})
	r.unrecorded.Store(int64(selection.Total()))
	if uses := selection.Uses(); r.last.Outdated(uses, r.options.Precision, time.Now()) {
		return r.write(ctx, uses)
	}
	return nil
}

func (r *Reporter) write(ctx context.Context, uses []usage.Use) error {
	now := time.Now()
	second := r.meter.Second(now)
	report := &v1alpha1.ApiKeyUsage{ObjectMeta: r.self, Report: rand.Text(), Uses: make([]v1alpha1.TokenUse, len(uses))}
	for i, use := range uses {
		age := max(0, int64(r.anchor.at(second).Sub(use.At)/time.Second))
		report.Uses[i] = v1alpha1.TokenUse{UID: use.UID, Digest: token.Digest(use.Digest).String(), Age: ptr.To(age)}
	}
	answer, err := r.client.apply(ctx, report)
	if err != nil {
		return err
	}
	r.anchor = anchor{answer.ReportedAt(), second}
	r.last = usage.NewReport(now, uses)
	r.reports.WithLabelValues(written).Inc()
	return nil
}
