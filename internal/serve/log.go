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

// Refusals beyond a rate are counted and not logged: whoever sends garbage must not be able to fill a disk.
const (
	logRate  = 10 // a second
	logBurst = 100
)

// Log is the observer that writes a line for each refusal, within a rate.
type Log struct {
	logger   logr.Logger
	allowed  bool
	limiter  *rate.Limiter
	unlogged prometheus.Counter
}

// NewLog returns the observer, and registers the metric of the lines that it leaves out; it panics if that has been registered before.
// allowed asks for a line for each request that is let in, too, at whatever rate.
func NewLog(logger logr.Logger, allowed bool, registry prometheus.Registerer) *Log {
	l := &Log{
		logger: logger, allowed: allowed, limiter: rate.NewLimiter(logRate, logBurst),
		unlogged: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: monitoring.Verifier, Name: "refusals_unlogged_total",
			Help: "Refusals that were counted and not logged, since there were too many.",
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
	l.logger.Error(fmt.Errorf("panic: %v", recovered), "a request was refused because of a defect in the verifier; please report it",
		"protocol", l.name, "stack", string(debug.Stack()))
}

func (l *protocolLog) write(decision verify.Decision, asked *Asked) {
	message := "refused"
	if decision.Allowed() {
		message = "allowed"
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
