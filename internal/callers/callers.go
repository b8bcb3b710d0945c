// Package callers protects HTTP handlers: it admits callers that the API server authenticates (TokenReview) and authorizes
// (SubjectAccessReview). It must not know anything about API keys or about the handlers.
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
)

// Answers of the API server about callers are cached. They say nothing about API keys.
const (
	allowedFor = time.Minute
	deniedFor  = 10 * time.Second

	// remembered is the capacity of each cache. Allowed and denied callers have separate caches, so that unknown callers can't evict
	// allowed ones.
	remembered = 4096
)

// Guard protects handlers by asking the API server about their callers.
type Guard struct {
	reviewer reviewer
	logger   logr.Logger
	logs     *rate.Limiter
	putOff   prometheus.Counter

	allowed *cache.LRUExpireCache // credentials that are allowed
	denied  *cache.LRUExpireCache // credentials that are denied, with their verdicts
	gate    *gate
	flights singleflight.Group
}

// Options are the options of a [Guard].
type Options struct {
	// Logger logs failed reviews, with a rate limit.
	Logger logr.Logger
	// PutOff counts requests that got 503 because too many callers waited for a review.
	PutOff prometheus.Counter
}

// NewPutOff registers the counters of [Options], whose names begin with a prefix. The label says what the callers asked for.
func NewPutOff(registry prometheus.Registerer, prefix string) *prometheus.CounterVec {
	counters := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: prefix, Name: "callers_put_off_total",
		Help: "Requests that got 503 because too many callers waited for a review by the API server.",
	}, []string{"endpoint"})
	registry.MustRegister(counters)
	return counters
}

// New returns a Guard that creates reviews with the credentials in config. They need the permission to create tokenreviews
// and subjectaccessreviews.
func New(config *rest.Config, o Options) (*Guard, error) {
	reviews, err := newReviews(config)
	if err != nil {
		return nil, err
	}
	return newGuard(reviews, o, defaultLimits, clock.RealClock{}), nil
}

func newGuard(reviewer reviewer, o Options, limits limits, clock clock.PassiveClock) *Guard {
	return &Guard{
		reviewer: reviewer, logger: o.Logger, logs: rate.NewLimiter(1, 10), putOff: o.PutOff,
		allowed: cache.NewLRUExpireCacheWithClock(remembered, clock),
		denied:  cache.NewLRUExpireCacheWithClock(remembered, clock),
		gate:    newGate(limits, clock),
	}
}

// credential identifies a token for a method and a path, without containing the token.
type credential [sha256.Size]byte

func newCredential(token, verb, path string) credential {
	return sha256.Sum256([]byte(verb + "\x00" + path + "\x00" + token))
}

// Protect returns a handler for callers that may use the request's method on its path, by the nonResourceURLs of RBAC. Other
// callers get 401 or 403. If the API server has not decided about a caller, because it can't be asked or too many callers
// wait, the caller gets 503.
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

// bearer returns the bearer token of a request, or "" if the request has none or several Authorization headers.
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

// verdict is the decision about a caller.
type verdict struct {
	status int // 200 admits the caller
	text   string
}

func (v verdict) write(w http.ResponseWriter) {
	switch v.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="kubernetes"`)
		v.text = "a bearer token that the API server accepts is required"
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, v.text, v.status)
}

// judge decides about a caller. Concurrent requests with the same token share one review.
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
		// Another review may have finished in the meantime.
		if v, ok := g.recall(asks); ok {
			return v, nil
		}
		return g.review(asks, from, token, verb, path), nil
	})
	select {
	case result := <-answer:
		if result.Err != nil {
			g.logger.Error(result.Err, "A review of a caller failed by a defect")
			panic(result.Err) // in the goroutine of the request, whose server recovers
		}
		v, _ := result.Val.(verdict) // no other type is returned
		return v
	case <-r.Context().Done():
		return verdict{http.StatusServiceUnavailable, "the caller disconnected"}
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

// review asks the API server about a caller once it is the caller's turn. It caches decisions, but not failures to ask.
func (g *Guard) review(asks credential, from netip.Addr, token, verb, path string) verdict {
	ctx, cancel := context.WithTimeout(context.Background(), reviewTimeout)
	defer cancel()
	leave, ok := g.gate.enter(ctx, asks, from)
	if !ok {
		g.putOff.Inc()
		return verdict{http.StatusServiceUnavailable, "too many unknown callers, try again later"}
	}
	defer leave()
	v, err := g.ask(ctx, token, verb, path)
	switch {
	case err != nil:
		if g.logs.Allow() {
			g.logger.Error(err, "Failed to ask the API server about a caller")
		}
		return verdict{http.StatusServiceUnavailable, "the API server is not available"}
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
		return verdict{http.StatusForbidden, fmt.Sprintf("user %s is not allowed to %s %s", caller.Username, verb, path)}, nil
	}
	return verdict{status: http.StatusOK}, nil
}
