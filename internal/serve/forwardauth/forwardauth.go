// Package forwardauth answers the authorization subrequests of nginx (auth_request), ingress-nginx, Traefik,
// Caddy and HAProxy, with 200 and the identity of the API key in headers, or with a refusal. It only
// translates: don't decide here.
package forwardauth

import (
	"net/http"
	"net/url"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Path is the path that the handler is served at.
const Path = "/auth"

const (
	paramRole      = "role"
	paramNamespace = "namespace"
)

// Handler answers authorization subrequests of any method. The query carries the scope of the route: role,
// any number of times, and namespace, at most once.
type Handler struct {
	// Checker decides on requests.
	Checker *serve.Protocol
	// Reader reads credentials.
	Reader verify.Reader
	// Proxies determine the client address.
	Proxies access.Proxies
	// Defaults apply to every route in addition to its own scope.
	Defaults verify.Defaults
	// AllRoles sends all roles of the key to the upstream instead of those that the route requires.
	AllRoles bool
	// Attributes are sent to the upstream in headers.
	Attributes []serve.AttributeHeader
}

// ServeHTTP implements [http.Handler].
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
		for _, a := range h.Attributes {
			header[a.Header] = []string{decision.Key.Attributes.Get(a.Attribute)}
		}
	}
	serve.AnswerTo(decision.Result).Write(w)
}

func route(query string) verify.Route {
	if query == "" {
		return verify.Route{}
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return verify.Bad("invalid query: %v", err)
	}
	for name := range params {
		if name != paramRole && name != paramNamespace {
			return verify.Bad("unknown parameter %.64q: must be %s or %s", name, paramRole, paramNamespace)
		}
	}
	return verify.NewRoute(params[paramRole], params[paramNamespace])
}
