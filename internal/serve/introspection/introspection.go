// Package introspection tells resource servers whether a token is active (OAuth 2.0 Token Introspection, RFC
// 7662). It only translates: don't decide here. Don't serve it to unauthenticated callers.
package introspection

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

const (
	// Path is the path that the handler is served at.
	Path = "/introspect"

	paramToken   = "token"
	paramAddress = "client_address"
)

// answer is the introspection response (RFC 7662, section 2.2).
type answer struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Username  string `json:"username,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	Expires   int64  `json:"exp,omitempty"`
	ID        string `json:"jti,omitempty"`
	Namespace string `json:"apikey_namespace,omitempty"`
	Name      string `json:"apikey_name,omitempty"`
	// Attributes are all attributes of the key, absent if it has none.
	Attributes map[string]string `json:"apikey_attributes,omitempty"`
}

// Handler answers introspection requests. A request is a form with the parameter token and, for API keys that
// are restricted to networks, client_address. The latter is an extension as RFC 7662, section 2.1, permits.
// The caller must be authenticated and authorized before the request reaches the handler.
type Handler struct {
	// Checker decides on requests.
	Checker *serve.Protocol
	// Reader reads credentials.
	Reader verify.Reader
}

// ServeHTTP implements [http.Handler]. It answers invalid requests with 4xx. For a token that isn't active,
// it answers with 200 and {"active":false}.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := serve.ReadPost(w, r, "application/x-www-form-urlencoded", "a form with the parameter token")
	if !ok {
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form[paramToken]) != 1 || len(form[paramAddress]) > 1 {
		http.Error(w, "invalid form: must have the parameter token once, and client_address at most once", http.StatusBadRequest)
		return
	}
	request := verify.Request{Credential: h.Reader.Token(form.Get(paramToken))}
	if text := form.Get(paramAddress); text != "" {
		if request.Address, err = netip.ParseAddr(text); err != nil {
			http.Error(w, "invalid client_address: must be an IP address", http.StatusBadRequest)
			return
		}
	}
	decision := h.Checker.Check(&request, r.Header.Get(serve.HeaderTraceparent))
	switch {
	case decision.Allowed():
		serve.WriteJSON(w, active(decision.Key))
	case decision.Result == verify.NotReady:
		serve.AnswerTo(decision.Result).Write(w)
	default:
		serve.WriteJSON(w, answer{})
	}
}

func active(key *verify.Key) answer {
	a := answer{
		Active:    true,
		Scope:     strings.Join(key.Roles.Names(), " "),
		Subject:   serve.Subject(key),
		Username:  serve.Subject(key),
		TokenType: "Bearer",
		ID:        key.UID,
		Namespace: key.Namespace,
		Name:      key.Name,

		Attributes: key.Attributes.Map(),
	}
	if at, ok := key.Deadline.Time(); ok {
		a.Expires = at.Unix()
	}
	return a
}
