// Package tokenreview answers the webhook calls with which kube-apiserver, kube-rbac-proxy and others
// authenticate a token (TokenReview of authentication.k8s.io, v1 and v1beta1). It only translates: don't
// decide here.
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
	// Path is the path that the handler is served at.
	Path = "/tokenreview"

	group = "authentication.k8s.io/"
	kind  = "TokenReview"
)

// DefaultAudiences are the audiences of a kube-apiserver with the usual issuers and without --api-audiences.
var DefaultAudiences = []string{"https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"}

// review is a TokenReview. v1 and v1beta1 have the same fields, see
// https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/.
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
	// Extra has the attributes of the key.
	Extra map[string][]string `json:"extra,omitempty"`
}

// Handler answers TokenReviews. A TokenReview has no client address, so API keys that are restricted to
// networks are refused. It has no route either: the groups of the user carry the roles of the key, and the
// API server authorizes by them.
type Handler struct {
	// Checker decides on requests.
	Checker *serve.Protocol
	// Reader reads credentials.
	Reader verify.Reader
	// Audiences that the tokens are valid for.
	Audiences []string
}

// ServeHTTP implements [http.Handler]. It answers invalid requests with 4xx. If the token is refused, it
// answers with 200 and a TokenReview that says so.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := serve.ReadPost(w, r, serve.MediaJSON, "a TokenReview")
	if !ok {
		return
	}
	var asked review
	if err := json.Unmarshal(body, &asked); err != nil {
		// The error may quote a part of the body, and with it of a token.
		http.Error(w, "invalid body: must be a TokenReview as JSON", http.StatusBadRequest)
		return
	}
	version, found := strings.CutPrefix(asked.APIVersion, group)
	if !found || version != "v1" && version != "v1beta1" || asked.Kind != kind {
		http.Error(w, "invalid apiVersion or kind: must be a TokenReview of authentication.k8s.io/v1 or v1beta1", http.StatusBadRequest)
		return
	}
	h.answer(w, asked, r.Header.Get(serve.HeaderTraceparent))
}

func (h *Handler) answer(w http.ResponseWriter, asked review, traceparent string) {
	audiences := intersect(asked.Spec.Audiences, h.Audiences)
	answer := answer{APIVersion: asked.APIVersion, Kind: kind}
	if len(asked.Spec.Audiences) > 0 && len(audiences) == 0 {
		answer.Status.Error = "none of the requested audiences is among the verifier's --audiences"
		serve.WriteJSON(w, answer)
		return
	}
	request := verify.Request{Credential: h.Reader.Token(asked.Spec.Token)}
	decision := h.Checker.Check(&request, traceparent)
	switch {
	case decision.Allowed():
		answer.Status = status{Authenticated: true, Audiences: audiences, User: &user{
			Username: serve.Subject(decision.Key), UID: decision.Key.UID, Groups: groups(decision.Key.Roles.Names()),
			Extra: extra(decision.Key),
		}}
	case decision.Result == verify.NotReady:
		answer.Status.Error = "the API keys of the verifier are not loaded or are stale; try again later"
	}
	serve.WriteJSON(w, answer)
}

// extraPrefix comes before the names of attributes. The API server's own extra fields have other prefixes.
const extraPrefix = "apikey-operator.io/"

func extra(key *verify.Key) map[string][]string {
	if key.Attributes.Empty() {
		return nil
	}
	extra := map[string][]string{}
	for name, value := range key.Attributes.All() {
		extra[extraPrefix+name] = []string{value}
	}
	return extra
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
