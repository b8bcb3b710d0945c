// Package guard checks API keys inside a Go service: net/http middleware and gRPC interceptors over the same index and decision as
// apikey-verifier. It is public, so that nothing of it may be taken away, and it decides nothing itself.
//
//	keys, err := guard.New(config, guard.Options{})
//	// ...
//	go keys.Run(ctx)
//	http.Handle("/orders", keys.Handler(orders, guard.Need{Roles: []string{"org.permission.order.read"}}))
//
// The service's account needs to get, list and watch ApiKeys and ApiRoles (the ClusterRole apikey-verifier holds no more than that
// and what the verifier needs for its own callers). No request is let in before both have been loaded. examples/orders is a whole
// program.
package guard

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/feed"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// DefaultMaxStaleness is how long keys are accepted without a word from the API server, unless Options say otherwise.
const DefaultMaxStaleness = 10 * time.Minute

// Options of a Guard. The zero value accepts the keys of the whole cluster, from clients that connect by themselves.
type Options struct {
	// Namespaces are those whose keys are accepted; none means all. One that may not be read stops the keys of no other.
	Namespaces []string
	// Selector picks the keys that are accepted by their labels; nil means all.
	Selector labels.Selector
	// MaxStaleness is how long keys are accepted without a word from the API server, which speaks about once a minute, for each of
	// Namespaces by itself. Zero means DefaultMaxStaleness; less than zero means for ever.
	MaxStaleness time.Duration
	// TokenPrefixes are those of the tokens that are accepted; none means the operator's default, ak.
	TokenPrefixes []string
	// TrustedProxies are the addresses of proxies in front whose X-Forwarded-For is believed, such as 10.0.7.16/28, and never a
	// network that clients are in. None means that whoever connects is the client.
	TrustedProxies []string
	// Logger gets a line for each refusal, within a rate. The zero value logs nothing.
	Logger logr.Logger
	// Metrics is where metrics are registered, under the names of apikey-verifier; nil means nowhere.
	Metrics prometheus.Registerer
}

// Need is what a caller needs to be let in. The zero value lets in every live key.
type Need struct {
	// Roles are all needed.
	Roles []string
	// Namespace is the one that the key must be of; "" means any.
	Namespace string
}

// Identity is who calls.
type Identity struct {
	// Namespace, Name and UID are those of the ApiKey.
	Namespace, Name, UID string
	// Roles are all that the key carries, in order. They must not be changed.
	Roles []string
}

// Guard knows the cluster's API keys and lets requests in.
type Guard struct {
	loader  *feed.Loader
	checker *serve.Checker
	http    *serve.Protocol
	grpc    *serve.Protocol
	reader  verify.Reader
	proxies access.Proxies
}

// New returns a Guard that knows the keys which the user of a configuration may see, once Run is called. An error tells which option is
// wrong.
func New(config *rest.Config, o Options) (*Guard, error) {
	for _, prefix := range o.TokenPrefixes {
		if err := token.ValidatePrefix(prefix); err != nil {
			return nil, fmt.Errorf("TokenPrefixes: %w", err)
		}
	}
	trusted, err := access.ParseProxies(o.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("TrustedProxies: %w", err)
	}
	staleness := o.MaxStaleness
	switch {
	case staleness == 0:
		staleness = DefaultMaxStaleness
	case staleness < 0:
		staleness = 0
	}
	keys := index.New(time.Now(), index.Options{MaxStaleness: staleness})
	loader, err := feed.NewLoader(config, keys, feed.Options{Namespaces: o.Namespaces, Selector: o.Selector, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	registry := o.Metrics
	if registry == nil {
		registry = prometheus.NewRegistry()
	}
	if err := registry.Register(feed.NewCollector(loader)); err != nil {
		return nil, fmt.Errorf("register the metrics of the index: %w", err)
	}
	checker := serve.NewChecker(serve.Options{Keys: keys, Observers: []serve.Observer{
		serve.NewMetrics(registry), serve.NewLog(o.Logger, false, registry),
	}})
	return newGuard(loader, checker, o.TokenPrefixes, trusted), nil
}

func newGuard(loader *feed.Loader, checker *serve.Checker, prefixes []string, trusted access.Networks) *Guard {
	if len(prefixes) == 0 {
		prefixes = []string{token.DefaultPrefix}
	}
	return &Guard{
		loader: loader, checker: checker, http: checker.Protocol("go-http"), grpc: checker.Protocol("go-grpc"),
		reader:  verify.Reader{Prefixes: prefixes},
		proxies: access.Proxies{Trusted: trusted, PeerIsClient: true},
	}
}

// Run loads the keys, and follows them until the context ends.
func (g *Guard) Run(ctx context.Context) { g.loader.Run(ctx) }

// Ready tells whether the keys are known, of one of Namespaces at least; else every request is refused with 503. It is meant for a
// readiness probe.
func (g *Guard) Ready() bool { return g.checker.Ready() }

type contextKey struct{}

// FromContext is who calls, in the context of a request that a Guard has let in; false in any other.
func FromContext(ctx context.Context) (Identity, bool) {
	identity, ok := ctx.Value(contextKey{}).(Identity)
	return identity, ok
}

func withIdentity(ctx context.Context, key *verify.Key) context.Context {
	return context.WithValue(ctx, contextKey{}, Identity{
		Namespace: key.Namespace, Name: key.Name, UID: key.UID, Roles: key.Roles.Names(),
	})
}

// Handler lets requests in to next: those with a key that has what is needed, from where it may be used. next finds the caller
// by FromContext, and neither the token nor headers called X-Apikey-… in the request. Others get 401, 403 or 503, as from
// apikey-verifier. A need that can't be met, such as a misspelt role, lets nobody in.
func (g *Guard) Handler(next http.Handler, need Need) http.Handler {
	route := need.route()
	// Only the check is guarded against panics of ours; those of next are its own business.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner := (*http.Request)(nil)
		g.http.Recovering(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inner = g.admitHTTP(w, r, route)
		})).ServeHTTP(w, r)
		if inner != nil {
			next.ServeHTTP(w, inner)
		}
	})
}

// admitHTTP returns the request as it goes on, or refuses it and returns nil.
func (g *Guard) admitHTTP(w http.ResponseWriter, r *http.Request, route verify.Route) *http.Request {
	request := verify.Request{
		Credential: g.reader.Headers(r.Header[verify.HeaderAuthorization], r.Header[verify.HeaderAPIKey]),
		Address:    g.proxies.Client(access.ParsePeer(r.RemoteAddr), r.Header[serve.HeaderForwardedFor]),
		Route:      route,
	}
	decision := g.http.Check(&request, r.Header.Get(serve.HeaderTraceparent))
	if !decision.Allowed() {
		serve.AnswerTo(decision.Result).Write(w)
		return nil
	}
	inner := r.Clone(withIdentity(r.Context(), decision.Key))
	for name := range inner.Header {
		if serve.Withheld(name, request.Credential) {
			delete(inner.Header, name)
		}
	}
	return inner
}

func (n Need) route() verify.Route {
	var namespaces []string
	if n.Namespace != "" {
		namespaces = []string{n.Namespace}
	}
	return verify.NewRoute(n.Roles, namespaces)
}
