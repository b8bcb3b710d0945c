// Package introspection tells resource servers whether a token is active (OAuth 2.0 Token Introspection, RFC 7662); it translates, decides
// nothing, and must not be served to whoever comes.
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
	// Path is where the handler is served.
	Path = "/introspect"

	paramToken   = "token"
	paramAddress = "client_address"
)

// answer is the response of RFC 7662, section 2.2.
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
}

// Handler answers introspection requests: a form with the parameter token and, for keys with networks, client_address, which is
// an extension as RFC 7662, section 2.1, allows. It must stand behind something that authenticates and authorizes the caller.
type Handler struct {
	// Checker decides, and Reader reads credentials.
	Checker *serve.Protocol
	Reader  verify.Reader
}

// ServeHTTP implements http.Handler. 4xx is about the caller's own request; a token that is not active gets 200.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := serve.ReadPost(w, r, "application/x-www-form-urlencoded", "a form with the parameter token")
	if !ok {
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form[paramToken]) != 1 || len(form[paramAddress]) > 1 {
		http.Error(w, "want a form with the parameter token once, and client_address at most once", http.StatusBadRequest)
		return
	}
	request := verify.Request{Credential: h.Reader.Token(form.Get(paramToken))}
	if text := form.Get(paramAddress); text != "" {
		if request.Address, err = netip.ParseAddr(text); err != nil {
			http.Error(w, "client_address is no IP address", http.StatusBadRequest)
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
	}
	if at, ok := key.Deadline.Time(); ok {
		a.Expires = at.Unix()
	}
	return a
}
