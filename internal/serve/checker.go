// Package serve holds what all protocols share: the listeners with their limits, readiness, and the record of each decision. Each
// folder below translates one protocol to a request and a decision back, and decides nothing.
package serve

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Refusals beyond a rate are counted and not logged: whoever sends garbage must not be able to fill a disk.
const (
	logRate  = 10
	logBurst = 100
)

// Checker decides on requests, and records each decision in metrics and log.
type Checker struct {
	keys       verify.Keys
	now        func() time.Time
	logger     logr.Logger
	logAllowed bool
	limiter    *rate.Limiter
	unlogged   prometheus.Counter
	panics     prometheus.Counter
	decisions  *prometheus.CounterVec
	latency    *prometheus.HistogramVec
}

// Options of a Checker.
type Options struct {
	Keys verify.Keys
	// Logger gets a line for each refusal, within a rate.
	Logger logr.Logger
	// LogAllowed asks for a line for each request that is let in, too.
	LogAllowed bool
	// Metrics is where the metrics are registered.
	Metrics prometheus.Registerer
	// Now is time.Now unless it is set.
	Now func() time.Time
}

// NewChecker returns a Checker.
func NewChecker(o Options) *Checker {
	c := &Checker{
		keys: o.Keys, now: o.Now, logger: o.Logger, logAllowed: o.LogAllowed,
		limiter: rate.NewLimiter(logRate, logBurst),
		unlogged: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: monitoring.Verifier, Name: "refusals_unlogged_total",
			Help: "Refusals that were counted and not logged, since there were too many.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: monitoring.Verifier, Name: "panics_total",
			Help: "Requests that were refused because of a defect in the verifier. Should be 0.",
		}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: monitoring.Verifier, Name: "decisions_total",
			Help: "Decisions, by protocol and result; every result but Allowed is a refusal.",
		}, []string{"protocol", "result"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: monitoring.Verifier, Name: "decision_duration_seconds",
			Help:    "Time of a decision, from the parsed request to the answer.",
			Buckets: prometheus.ExponentialBuckets(250e-9, 4, 8), // 250 ns to 4 ms
		}, []string{"protocol"}),
	}
	if c.now == nil {
		c.now = time.Now
	}
	o.Metrics.MustRegister(c.unlogged, c.panics, c.decisions, c.latency)
	return c
}

// Protocol is a Checker for the requests of one protocol.
type Protocol struct {
	*Checker
	name      string
	decisions [verify.Results]prometheus.Counter
	latency   prometheus.Observer
}

// Protocol returns a Checker for a protocol, which its name is in metrics and log.
func (c *Checker) Protocol(name string) *Protocol {
	p := &Protocol{Checker: c, name: name, latency: c.latency.WithLabelValues(name)}
	for result := range verify.Result(verify.Results) {
		p.decisions[result] = c.decisions.WithLabelValues(name, result.String())
	}
	return p
}

// Check decides on a request. traceparent is the header of this name that came with it, or "".
func (p *Protocol) Check(request *verify.Request, traceparent string) verify.Decision {
	now := p.now()
	decision := verify.Decide(p.keys, request, now)
	p.latency.Observe(p.now().Sub(now).Seconds())
	p.decisions[decision.Result].Inc()
	switch {
	case !decision.Allowed():
		if p.limiter.AllowN(now, 1) {
			p.log("refused", request, decision, traceparent)
		} else {
			p.unlogged.Inc()
		}
	case p.logAllowed:
		p.log("allowed", request, decision, traceparent)
	}
	return decision
}

// Panicked records that answering a request went wrong, by a defect of ours. The request must then be refused.
func (p *Protocol) Panicked(recovered any) {
	p.panics.Inc()
	p.logger.Error(fmt.Errorf("panic: %v", recovered), "a request was refused because of a defect in the verifier; please report it",
		"protocol", p.name, "stack", string(debug.Stack()))
}

// Recovering is a handler that refuses a request where the one below panics.
func (p *Protocol) Recovering(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recovered := recover(); recovered != nil {
				p.Panicked(recovered)
				AnswerTo(verify.NotReady).Write(w)
			}
		}()
		handler.ServeHTTP(w, r)
	})
}

// Ready tells whether some request can be answered with anything but NotReady.
func (c *Checker) Ready() bool { return c.keys.Ready(c.now()) }

func (p *Protocol) log(message string, request *verify.Request, decision verify.Decision, traceparent string) {
	fields := []any{"protocol", p.name, "result", decision.Result.String()}
	if request.Address.IsValid() {
		fields = append(fields, "address", request.Address.String())
	}
	if key := decision.Key; key != nil {
		fields = append(fields, "namespace", key.Namespace, "name", key.Name, "uid", key.UID)
		switch decision.Result {
		case verify.RoleMissing:
			if role, missing := key.Roles.Missing(request.Route.Roles); missing {
				fields = append(fields, "missingRole", role)
			}
			if want := request.Route.Namespace; want != "" && want != key.Namespace {
				fields = append(fields, "wantedNamespace", want)
			}
		case verify.BadRoute:
			fields = append(fields, "problem", request.Route.Problem)
		default:
		}
	}
	if trace, span, ok := parseTraceparent(traceparent); ok {
		fields = append(fields, "traceID", trace, "spanID", span)
	}
	p.logger.Info(message, fields...)
}
