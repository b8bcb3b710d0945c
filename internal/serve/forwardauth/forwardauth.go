// Package forwardauth answers the authorization subrequests of nginx (auth_request), ingress-nginx, Traefik,
// Caddy and HAProxy, with 200 and the identity of the API key in headers, or with a refusal. It only
// translates: don't decide here.
package forwardauth

import (
	"net/http"
	"net/url"
	"strings"

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
		key, header := decision.Key, w.Header()
		// The values share an array, which is one allocation for all of them.
		values := [...]string{key.Namespace, key.Name, key.UID, serve.Roles(key, request.Route, h.AllRoles)}
		header[serve.HeaderNamespace], header[serve.HeaderName] = values[0:1:1], values[1:2:2]
		header[serve.HeaderUID], header[serve.HeaderRoles] = values[2:3:3], values[3:4:4]
		for _, a := range h.Attributes {
			header[a.Header] = []string{key.Attributes.Get(a.Attribute)}
		}
	}
	serve.AnswerTo(decision.Result).Write(w)
}

func route(query string) verify.Route {
	if query == "" {
		return verify.Route{}
	}
	if roles, namespaces, ok := plain(query); ok {
		return verify.NewRoute(roles, namespaces)
	}
	return parsed(query)
}

// plain reads a query that has no escapes, and no other parameters than ours. Almost all queries are like that. ok is
// false for every other query, which is left to net/url.
func plain(query string) (roles, namespaces []string, ok bool) {
	const enough = 4 << 10 // net/url limits the number of parameters
	if len(query) > enough || strings.ContainsAny(query, "%+;") {
		return nil, nil, false
	}
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		switch {
		case part == "":
		case name == paramRole:
			roles = append(roles, value)
		case name == paramNamespace:
			namespaces = append(namespaces, value)
		default:
			return nil, nil, false
		}
	}
	return roles, namespaces, true
}

// parsed reads any query.
func parsed(query string) verify.Route {
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
