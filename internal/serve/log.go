package serve

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Refusals beyond this rate are counted but not logged, so that clients can't fill the disk with invalid
// requests.
const (
	logRate  = 10 // lines per second
	logBurst = 100
)

// Log is an [Observer] that logs refusals up to a limited rate.
type Log struct {
	logger   logr.Logger
	allowed  bool
	limiter  *rate.Limiter
	unlogged prometheus.Counter
}

// NewLog returns a [Log]. It registers a metric that counts the refusals that it doesn't log, and panics if
// that metric is already registered. If allowed is true, it also logs all accepted requests, without a limit.
func NewLog(logger logr.Logger, allowed bool, registry prometheus.Registerer) *Log {
	l := &Log{
		logger: logger, allowed: allowed, limiter: rate.NewLimiter(logRate, logBurst),
		unlogged: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: monitoring.Verifier, Name: "refusals_unlogged_total",
			Help: "Refusals that were counted but not logged because they exceeded the rate limit of the log.",
		}),
	}
	registry.MustRegister(l.unlogged)
	return l
}

// Protocol implements [Observer].
func (l *Log) Protocol(name string) ProtocolObserver { return &protocolLog{Log: l, name: name} }

type protocolLog struct {
	*Log
	name string
}

// Decided implements [ProtocolObserver].
func (l *protocolLog) Decided(decision verify.Decision, at time.Time, _ time.Duration) func(Asked) {
	switch {
	case decision.Allowed():
		if !l.allowed {
			return nil
		}
	case !l.limiter.AllowN(at, 1):
		l.unlogged.Inc()
		return nil
	}
	return func(asked Asked) { l.write(decision, &asked) }
}

// Panicked implements [ProtocolObserver].
func (l *protocolLog) Panicked(recovered any) {
	l.logger.Error(fmt.Errorf("panic: %v", recovered), "Request refused because of a bug in the verifier; please report it",
		"protocol", l.name, "stack", string(debug.Stack()))
}

func (l *protocolLog) write(decision verify.Decision, asked *Asked) {
	message := "Request refused"
	if decision.Allowed() {
		message = "Request allowed"
	}
	fields := []any{"protocol", l.name, "result", decision.Result.String()}
	if asked.Address.IsValid() {
		fields = append(fields, "address", asked.Address.String())
	}
	if key := decision.Key; key != nil {
		fields = append(fields, "namespace", key.Namespace, "name", key.Name, "uid", key.UID)
		switch decision.Result {
		case verify.RoleMissing:
			if role, missing := key.Roles.Missing(asked.Route.Roles); missing {
				fields = append(fields, "missingRole", role)
			}
			if want := asked.Route.Namespace; want != "" && want != key.Namespace {
				fields = append(fields, "wantedNamespace", want)
			}
		case verify.BadRoute:
			fields = append(fields, "problem", asked.Route.Problem)
		default:
		}
	}
	if trace, span, ok := parseTraceparent(asked.Traceparent); ok {
		fields = append(fields, "traceID", trace, "spanID", span)
	}
	l.logger.Info(message, fields...)
}
