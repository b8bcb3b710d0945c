// Package forwardauth answers the subrequests of nginx (auth_request), ingress-nginx, Traefik, Caddy and HAProxy: 200 with the caller's
// identity in headers, or a refusal; it translates, and decides nothing.
package forwardauth

import (
	"net/http"
	"net/url"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Path is where the handler is served.
const Path = "/auth"

const (
	paramRole      = "role"
	paramNamespace = "namespace"
)

// Handler answers forward-auth requests of any method. The route's wishes are in the query: role, any number of times, and
// namespace, at most once.
type Handler struct {
	// Checker decides, and Reader reads credentials.
	Checker *serve.Protocol
	Reader  verify.Reader
	// Proxies say whose word on the client's address is taken.
	Proxies access.Proxies
	// Defaults hold for every route, whatever it asks for.
	Defaults verify.Defaults
	// AllRoles hands on all roles of a key, and not only those that were asked for.
	AllRoles bool
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request := verify.Request{
		Credential: h.Reader.Headers(r.Header[verify.HeaderAuthorization], r.Header[verify.HeaderAPIKey]),
		Address:    h.Proxies.Client(access.ParsePeer(r.RemoteAddr), r.Header[serve.HeaderForwardedFor]),
		Route:      h.Defaults.Apply(route(r.URL.RawQuery)),
	}
	decision := h.Checker.Check(&request, r.Header.Get(serve.HeaderTraceparent))
	if decision.Allowed() {
		header := w.Header()
		header[serve.HeaderNamespace] = []string{decision.Key.Namespace}
		header[serve.HeaderName] = []string{decision.Key.Name}
		header[serve.HeaderUID] = []string{decision.Key.UID}
		header[serve.HeaderRoles] = []string{serve.Roles(decision.Key, request.Route, h.AllRoles)}
	}
	serve.AnswerTo(decision.Result).Write(w)
}

func route(query string) verify.Route {
	if query == "" {
		return verify.Route{}
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return verify.Bad("query: %v", err)
	}
	for name := range params {
		if name != paramRole && name != paramNamespace {
			return verify.Bad("parameter %.64q: want %s or %s", name, paramRole, paramNamespace)
		}
	}
	return verify.NewRoute(params[paramRole], params[paramNamespace])
}
