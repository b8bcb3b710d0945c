// Package callers lets those in to a handler whom the API server knows (TokenReview) and lets (SubjectAccessReview); it knows nothing of
// API keys.
package callers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
)

// What the API server said of a caller is believed for a while. It is about the caller, never about an API key.
const (
	authenticatedFor = time.Minute
	allowedFor       = time.Minute
	deniedFor        = 10 * time.Second

	reviewTimeout = 10 * time.Second
	reviewRate    = 50 // a second
	reviewBurst   = 100
)

// Guard asks the API server about callers.
type Guard struct {
	authenticator authenticator.Request
	authorizer    authorizer.Authorizer
	logger        logr.Logger
}

// New returns a Guard that asks as the user of a configuration, who needs to create tokenreviews and subjectaccessreviews.
// controller-runtime's filter for metrics would do but for one thing: it answers a token that is none with 500.
func New(config *rest.Config, logger logr.Logger) (*Guard, error) {
	// Whoever reaches this can have the API server asked. It is asked at a rate of which it notices nothing; callers wait for their turn.
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = reviewRate, reviewBurst
	authentication, err := authenticationv1.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	authorization, err := authorizationv1.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	backoff := &wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 4}
	g := &Guard{logger: logger}
	if g.authenticator, _, err = (authenticatorfactory.DelegatingAuthenticatorConfig{
		Anonymous:                &apiserver.AnonymousAuthConfig{Enabled: false},
		CacheTTL:                 authenticatedFor,
		TokenAccessReviewClient:  authentication,
		TokenAccessReviewTimeout: reviewTimeout,
		WebhookRetryBackoff:      backoff,
	}).New(); err != nil {
		return nil, fmt.Errorf("set up authentication: %w", err)
	}
	if g.authorizer, err = (authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: authorization,
		AllowCacheTTL:             allowedFor,
		DenyCacheTTL:              deniedFor,
		WebhookRetryBackoff:       backoff,
	}).New(); err != nil {
		return nil, fmt.Errorf("set up authorization: %w", err)
	}
	return g, nil
}

// Protect is a handler for those who may use its path with the request's method, as RBAC's nonResourceURLs say it. Others get 401 or
// 403; 503 where the API server can't be asked.
func (g *Guard) Protect(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, ok, err := g.authenticator.AuthenticateRequest(r)
		if isOutage(err) {
			g.unavailable(w, err)
			return
		}
		if err != nil || !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="kubernetes"`)
			http.Error(w, "want a bearer token that the API server knows", http.StatusUnauthorized)
			return
		}
		verb := strings.ToLower(r.Method)
		decision, _, err := g.authorizer.Authorize(r.Context(), authorizer.AttributesRecord{User: caller.User, Verb: verb, Path: r.URL.Path})
		if err != nil {
			g.unavailable(w, err)
			return
		}
		if decision != authorizer.DecisionAllow {
			http.Error(w, fmt.Sprintf("%s may not %s %s", caller.User.GetName(), verb, r.URL.Path), http.StatusForbidden)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

func (g *Guard) unavailable(w http.ResponseWriter, err error) {
	g.logger.Error(err, "the API server can't be asked about a caller")
	http.Error(w, "the API server can't be asked", http.StatusServiceUnavailable)
}

// isOutage tells a review that could not be made from one that says no: the latter is a bare text.
func isOutage(err error) bool {
	var several utilerrors.Aggregate
	if errors.As(err, &several) {
		for _, one := range several.Errors() {
			if isOutage(one) {
				return true
			}
		}
		return false
	}
	var status apierrors.APIStatus
	var transport *url.Error
	return errors.As(err, &status) || errors.As(err, &transport) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
