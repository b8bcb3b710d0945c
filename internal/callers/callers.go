// Package callers lets those in to a handler whom the API server knows (TokenReview) and lets (SubjectAccessReview); nothing here may know of
// API keys, or of what the handler answers.
package callers

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// What the API server said of a caller is believed for a while. It is about the caller, never about an API key.
const (
	allowedFor = time.Minute
	deniedFor  = 10 * time.Second

	// answers are remembered of so many tokens, the latest; those of whom it said yes apart from the others, so that no number of
	// strangers makes it forget them.
	remembered = 4096
)

// Guard asks the API server about callers.
type Guard struct {
	reviewer reviewer
	logger   logr.Logger
	logs     *rate.Limiter
	putOff   prometheus.Counter

	allowed *cache.LRUExpireCache // of credentials, while they are believed
	denied  *cache.LRUExpireCache // the same, with their verdicts
	gate    *gate
	flights singleflight.Group
}

// Options of a Guard.
type Options struct {
	// Logger is told of reviews that could not be made, within a rate.
	Logger logr.Logger
	// Metrics is where the metrics are registered.
	Metrics prometheus.Registerer
}

// New returns a Guard that asks as the user of a configuration, who needs to create tokenreviews and subjectaccessreviews.
func New(config *rest.Config, o Options) (*Guard, error) {
	reviews, err := newReviews(config)
	if err != nil {
		return nil, err
	}
	return newGuard(reviews, o, defaultLimits, clock.RealClock{}), nil
}

func newGuard(reviewer reviewer, o Options, limits limits, clock clock.PassiveClock) *Guard {
	g := &Guard{
		reviewer: reviewer, logger: o.Logger, logs: rate.NewLimiter(1, 10),
		putOff: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: monitoring.Verifier, Name: "callers_put_off_total",
			Help: "Requests to introspect that got 503 unreviewed, since too many unknown callers asked.",
		}),
		allowed: cache.NewLRUExpireCacheWithClock(remembered, clock),
		denied:  cache.NewLRUExpireCacheWithClock(remembered, clock),
		gate:    newGate(limits, clock),
	}
	o.Metrics.MustRegister(g.putOff)
	return g
}

// credential tells tokens apart for a method and a path, and holds none of them.
type credential [sha256.Size]byte

func newCredential(token, verb, path string) credential {
	return sha256.Sum256([]byte(verb + "\x00" + path + "\x00" + token))
}

// Protect is a handler for those who may use its path with the request's method, as RBAC's nonResourceURLs say it. Others get 401 or 403.
// Whoever the API server has not said yes or no of gets 503: it can't be asked, or there are too many to ask about.
func (g *Guard) Protect(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := bearer(r)
		if token == "" {
			verdict{status: http.StatusUnauthorized}.write(w)
			return
		}
		if v := g.judge(r, token); v.status != http.StatusOK {
			v.write(w)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// bearer is the token of a request; "" if it has none, or more than one.
func bearer(r *http.Request) string {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(strings.TrimSpace(values[0]), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// verdict is what a caller is told.
type verdict struct {
	status int // 200 lets in
	text   string
}

func (v verdict) write(w http.ResponseWriter) {
	switch v.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="kubernetes"`)
		v.text = "want a bearer token that the API server knows"
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, v.text, v.status)
}

// judge asks once, however many requests wait for what is said of a token.
func (g *Guard) judge(r *http.Request, token string) verdict {
	verb := strings.ToLower(r.Method)
	asks := newCredential(token, verb, r.URL.Path)
	if v, ok := g.recall(asks); ok {
		return v
	}
	from := access.ParsePeer(r.RemoteAddr)
	path := r.URL.Path
	answer := g.flights.DoChan(string(asks[:]), func() (_ any, err error) {
		defer func() {
			if recovered := recover(); recovered != nil {
				err = fmt.Errorf("%v\n%s", recovered, debug.Stack())
			}
		}()
		// Another flight may have landed since.
		if v, ok := g.recall(asks); ok {
			return v, nil
		}
		return g.review(asks, from, token, verb, path), nil
	})
	select {
	case result := <-answer:
		if result.Err != nil {
			panic(result.Err) // where somebody recovers and reports it
		}
		v, _ := result.Val.(verdict) // it is never anything else
		return v
	case <-r.Context().Done():
		return verdict{http.StatusServiceUnavailable, "the caller is gone"}
	}
}

func (g *Guard) recall(asks credential) (verdict, bool) {
	if _, ok := g.allowed.Get(asks); ok {
		return verdict{status: http.StatusOK}, true
	}
	if v, ok := g.denied.Get(asks); ok {
		v, ok := v.(verdict)
		return v, ok
	}
	return verdict{}, false
}

// review has the API server asked, once it is this caller's turn. What it says is remembered; that it can't be asked is not.
func (g *Guard) review(asks credential, from netip.Addr, token, verb, path string) verdict {
	ctx, cancel := context.WithTimeout(context.Background(), reviewTimeout)
	defer cancel()
	leave, ok := g.gate.enter(ctx, asks, from)
	if !ok {
		g.putOff.Inc()
		return verdict{http.StatusServiceUnavailable, "too many unknown callers ask: try again"}
	}
	defer leave()
	v, err := g.ask(ctx, token, verb, path)
	switch {
	case err != nil:
		if g.logs.Allow() {
			g.logger.Error(err, "the API server can't be asked about a caller")
		}
		return verdict{http.StatusServiceUnavailable, "the API server can't be asked"}
	case v.status == http.StatusOK:
		g.gate.know(asks, from)
		g.allowed.Add(asks, nil, allowedFor)
	default:
		g.denied.Add(asks, v, deniedFor)
	}
	return v
}

func (g *Guard) ask(ctx context.Context, token, verb, path string) (verdict, error) {
	caller, ok, err := g.reviewer.authenticate(ctx, token)
	switch {
	case err != nil:
		return verdict{}, err
	case !ok:
		return verdict{status: http.StatusUnauthorized}, nil
	}
	allowed, err := g.reviewer.authorize(ctx, caller, verb, path)
	switch {
	case err != nil:
		return verdict{}, err
	case !allowed:
		return verdict{http.StatusForbidden, fmt.Sprintf("%s may not %s %s", caller.Username, verb, path)}, nil
	}
	return verdict{status: http.StatusOK}, nil
}
