// Package tokenreview answers the webhook calls by which kube-apiserver, kube-rbac-proxy and others authenticate a token (TokenReview of
// authentication.k8s.io, v1 and v1beta1); it translates, and decides nothing.
package tokenreview

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

const (
	// Path is where the handler is served.
	Path = "/tokenreview"

	group = "authentication.k8s.io/"
	kind  = "TokenReview"
)

// DefaultAudiences are those that a kube-apiserver has unless it is told otherwise, by the usual issuers.
var DefaultAudiences = []string{"https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"}

// review is a TokenReview, v1 or v1beta1: the two have the same fields.
// https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
type review struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       spec   `json:"spec"`
}

type spec struct {
	Token     string   `json:"token"`
	Audiences []string `json:"audiences,omitempty"`
}

type answer struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Status     status `json:"status"`
}

type status struct {
	Authenticated bool     `json:"authenticated"`
	User          *user    `json:"user,omitempty"`
	Audiences     []string `json:"audiences,omitempty"`
	Error         string   `json:"error,omitempty"`
}

type user struct {
	Username string   `json:"username"`
	UID      string   `json:"uid"`
	Groups   []string `json:"groups"`
}

// Handler answers TokenReviews. There is no client address in one, so that keys with networks are refused; there is no route
// either: what a key may do, its groups decide.
type Handler struct {
	// Checker decides, and Reader reads credentials.
	Checker *serve.Protocol
	Reader  verify.Reader
	// Audiences are those that this verifier speaks for.
	Audiences []string
}

// ServeHTTP implements http.Handler. 4xx is about the caller's own request; whatever is wrong with the token that it asks about
// is told in a TokenReview with 200.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := serve.ReadPost(w, r, serve.MediaJSON, "a TokenReview")
	if !ok {
		return
	}
	var asked review
	if err := json.Unmarshal(body, &asked); err != nil {
		// The error may hold a piece of the body, and so of a token.
		http.Error(w, "the body is no JSON of a TokenReview", http.StatusBadRequest)
		return
	}
	version, found := strings.CutPrefix(asked.APIVersion, group)
	if !found || version != "v1" && version != "v1beta1" || asked.Kind != kind {
		http.Error(w, "want a TokenReview of authentication.k8s.io/v1 or v1beta1", http.StatusBadRequest)
		return
	}
	h.answer(w, asked, r.Header.Get(serve.HeaderTraceparent))
}

func (h *Handler) answer(w http.ResponseWriter, asked review, traceparent string) {
	audiences := intersect(asked.Spec.Audiences, h.Audiences)
	answer := answer{APIVersion: asked.APIVersion, Kind: kind}
	if len(asked.Spec.Audiences) > 0 && len(audiences) == 0 {
		answer.Status.Error = "none of the audiences asked for is one of the verifier's --audiences"
		serve.WriteJSON(w, answer)
		return
	}
	request := verify.Request{Credential: h.Reader.Token(asked.Spec.Token)}
	decision := h.Checker.Check(&request, traceparent)
	switch {
	case decision.Allowed():
		answer.Status = status{Authenticated: true, Audiences: audiences, User: &user{
			Username: serve.Subject(decision.Key), UID: decision.Key.UID, Groups: groups(decision.Key.Roles.Names()),
		}}
	case decision.Result == verify.NotReady:
		answer.Status.Error = "the verifier has not loaded the API keys, or not lately enough"
	}
	serve.WriteJSON(w, answer)
}

func groups(roles []string) []string {
	groups := make([]string, len(roles))
	for i, role := range roles {
		groups[i] = "apikey:" + role
	}
	return groups
}

func intersect(asked, ours []string) []string {
	var both []string
	for _, audience := range asked {
		if slices.Contains(ours, audience) {
			both = append(both, audience)
		}
	}
	return both
}
