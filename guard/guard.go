// Package guard checks API keys inside a Go service. It offers net/http middleware and gRPC interceptors that
// give the same answers as apikey-verifier without calling it. This is a public package: don't remove or change
// anything exported, and don't decide anything here.
//
// # Getting started
//
// [New] returns a [Guard], [Guard.Run] loads the API keys and follows their changes, and [Guard.Handler]
// protects a handler:
//
//	keys, err := guard.New(config, guard.Options{})
//	// ...
//	go keys.Run(ctx)
//	http.Handle("/orders", keys.Handler(orders, guard.Need{Roles: []string{"org.permission.order.read"}}))
//
// [Guard.UnaryServerInterceptor] and [Guard.StreamServerInterceptor] do the same for gRPC. The program in
// examples/orders shows a whole service.
//
// # What a client sends
//
// The token is either the bearer token of the Authorization header or the value of the X-API-Key header. Over
// gRPC, both are metadata. The service behind the guard gets the identity of the API key from
// [FromContext]. It sees neither the token nor any header that starts with X-Apikey-, so a client can't forge an
// identity.
//
// # Permissions
//
// The service account of the service must be allowed to get, list and watch ApiKeys and ApiRoles. Options.ReportUsage
// needs one more permission. It needs no others. The ClusterRole apikey-verifier includes these, and also what the verifier needs to
// authenticate its own callers.
//
// # Startup and loss of the API server
//
// Until the API keys and the role catalogue are loaded, the guard refuses every request with 503 or
// UNAVAILABLE. The same happens when the API server has sent nothing for longer than Options.MaxStaleness.
// Let the readiness probe return [Guard.Ready], so that no client is routed to a replica that can't answer
// yet.
//
// # Client addresses
//
// An ApiKey can restrict the networks from which it may be used. By default, the peer address of the connection
// is the client address. If clients connect through a proxy or load balancer, list its addresses in
// Options.TrustedProxies, so that the guard reads the client address from X-Forwarded-For.
package guard

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/feed"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/reporting"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// DefaultMaxStaleness is the value of Options.MaxStaleness if it is zero.
const DefaultMaxStaleness = 10 * time.Minute

// Options configure a [Guard]. The zero value accepts the API keys of all namespaces from clients that
// connect directly.
type Options struct {
	// Namespaces whose API keys are accepted. Empty means all namespaces. If the service may not read one of
	// them, only the keys of that namespace are refused.
	Namespaces []string
	// Selector restricts the accepted API keys by the labels of the ApiKey. Nil means all API keys.
	Selector labels.Selector
	// MaxStaleness is how long API keys stay accepted after the API server was last heard of. It counts
	// separately for each of Namespaces. While the connection is healthy, the API server sends an event or a
	// bookmark about once a minute. Zero means [DefaultMaxStaleness]. A negative value means no limit.
	MaxStaleness time.Duration
	// TokenPrefixes are the prefixes of the tokens that are accepted. Empty means the operator's default, ak.
	TokenPrefixes []string
	// TrustedProxies are the networks, in CIDR notation such as 10.0.7.16/28, of the proxies whose
	// X-Forwarded-For header is trusted. Never list a network that contains clients: they could claim any
	// address. Empty means that the peer of the connection is the client.
	TrustedProxies []string
	// Logger receives a line for each refused request, up to a limited rate. The zero value logs nothing.
	Logger logr.Logger
	// Metrics is where the metrics are registered, under the same names as those of apikey-verifier. Nil
	// means that the metrics aren't exposed.
	Metrics prometheus.Registerer
	// ReportUsage reports which API keys are used, so that the operator records when each was last used. The service
	// account then also needs the permission to create and patch ApiKeyUsages in its own namespace. Outside of the
	// namespace of the operator, only the use of API keys in the namespace of the service is recorded. No decision
	// depends on a report, or waits for one.
	ReportUsage bool
}

// Need is what a route requires of an API key. The zero value refuses every request, so that a handler without
// a need is closed.
type Need struct {
	// Roles that the API key must carry, all of them.
	Roles []string
	// Namespace that the ApiKey must be in. Empty means any namespace.
	Namespace string
	// AnyKey accepts every valid API key if there are neither Roles nor a Namespace.
	AnyKey bool
}

// Identity identifies the API key that a request was made with.
type Identity struct {
	// Namespace, Name and UID of the ApiKey.
	Namespace, Name, UID string
	// Roles that the API key carries, including those that other roles include, sorted. Callers must not
	// modify the slice.
	Roles []string
	// Attributes of the ApiKey by name: whose key it is, as its author says. Nil if it has none. They don't
	// prove anything, so don't open anything by them.
	Attributes map[string]string
}

// Guard checks requests against the API keys of the cluster. Create it with [New]. It is safe for concurrent
// use.
type Guard struct {
	loader  *feed.Loader
	checker *serve.Checker
	http    *serve.Protocol
	grpc    *serve.Protocol
	reader  verify.Reader
	proxies access.Proxies
	// reporter is nil unless the use of keys is reported.
	reporter *reporting.Reporter
}

// New returns a [Guard] that reads API keys with the permissions of config. It loads nothing before
// [Guard.Run] is called. It returns an error that names the option if an option is invalid, or if the metrics
// are already registered with Options.Metrics.
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
	started := time.Now()
	keys := index.New(started, index.Options{MaxStaleness: staleness})
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
	observers := []serve.Observer{serve.NewMetrics(registry), serve.NewLog(o.Logger, false, registry)}
	var reporter *reporting.Reporter
	if o.ReportUsage {
		meter := usage.NewMeter(started)
		reporter, err = reporting.New(config, keys, meter, reporting.Options{Logger: o.Logger, Metrics: registry})
		if err != nil {
			return nil, fmt.Errorf("ReportUsage: %w", err)
		}
		observers = append(observers, serve.NewUsage(meter))
	}
	g := newGuard(loader, serve.NewChecker(serve.Options{Keys: keys, Observers: observers}), o.TokenPrefixes, trusted)
	g.reporter = reporter
	return g, nil
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

// Run loads the API keys and follows their changes until ctx is done. Call it once. If the API server can't
// be reached, Run retries with backoff.
func (g *Guard) Run(ctx context.Context) {
	var running sync.WaitGroup
	if g.reporter != nil {
		running.Go(func() { g.reporter.Run(ctx) })
	}
	g.loader.Run(ctx)
	running.Wait()
}

// Ready reports whether the guard can accept API keys: the role catalogue is loaded and fresh, and so are the
// API keys of at least one namespace. Otherwise every request is refused with 503. Use it in a readiness
// probe.
func (g *Guard) Ready() bool { return g.checker.Ready() }

type contextKey struct{}

// FromContext returns the identity of the API key from the context of a request that a [Guard] accepted. It
// returns false for any other context.
func FromContext(ctx context.Context) (Identity, bool) {
	identity, ok := ctx.Value(contextKey{}).(Identity)
	return identity, ok
}

func withIdentity(ctx context.Context, key *verify.Key) context.Context {
	return context.WithValue(ctx, contextKey{}, Identity{
		Namespace: key.Namespace, Name: key.Name, UID: key.UID, Roles: key.Roles.Names(), Attributes: key.Attributes.Map(),
	})
}

// Handler returns a handler that calls next if the request has an API key that meets need and that may be
// used from the client's address. Otherwise it answers with 401, 403 or 503, as apikey-verifier does.
//
// In the request that next receives, [FromContext] returns the identity of the API key. The header with the
// token and all headers that start with X-Apikey- are removed. A need that is invalid, for example because a
// role is misspelt, and one without roles, namespace and AnyKey refuse every request.
func (g *Guard) Handler(next http.Handler, need Need) http.Handler {
	route := need.route()
	// Recovering covers the check only. A panic in next must reach the server.
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

// admitHTTP returns the request for the next handler. If the request is refused, it writes the answer and
// returns nil.
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
	if len(n.Roles) == 0 && n.Namespace == "" && !n.AnyKey {
		return verify.Bad("Need has neither Roles nor a Namespace: add a role, or let in every live key by AnyKey")
	}
	var namespaces []string
	if n.Namespace != "" {
		namespaces = []string{n.Namespace}
	}
	return verify.NewRoute(n.Roles, namespaces)
}
