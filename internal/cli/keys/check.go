package keys

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/go-logr/logr/funcr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/feed"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Question is what a gateway would ask a verifier about a request with a token.
type Question struct {
	Token token.Token
	// Route is the scope of the route.
	Route verify.Route
	// From is the client address. The zero value means unknown.
	From netip.Addr
}

// Answer is the decision of a verifier that has all keys and roles, and no defaults of its own.
type Answer struct {
	Result verify.Result
	// Key is the key that the token belongs to, or nil.
	Key *v1alpha1.ApiKey
	// Why explains the result in words.
	Why string
	// Unsure says why the answer can't be given by what the user may read, or is empty. Result doesn't count then.
	Unsure string
}

// Check decides about a request as a verifier does, on the objects as they are now. If the user may not list the keys of all namespaces, it
// looks for the key in the namespace fallback.
func (c *Cluster) Check(ctx context.Context, q Question, fallback string, now time.Time) (Answer, error) {
	digest := q.Token.Digest()
	found, search, err := c.Find(ctx, "", fallback, digest)
	if err != nil {
		return Answer{}, err
	}
	roles, err := c.Roles(ctx)
	if err != nil && !apierrors.IsForbidden(err) {
		return Answer{}, err
	}
	return AnswerOf(q, found[digest], search, Catalogue{Roles: roles, Unread: err != nil}, now), nil
}

// Catalogue is the role catalogue, or what is known of it.
type Catalogue struct {
	Roles []v1alpha1.ApiRole
	// Unread says that the user may not list the roles.
	Unread bool
}

// AnswerOf decides about a request with a token that the keys in matches have. They were found by search.
func AnswerOf(q Question, matches []Match, search Search, catalogue Catalogue, now time.Time) Answer {
	decision, problems := decide(matches, catalogue.Roles, q, now)
	a := Answer{Result: decision.Result}
	if len(matches) > 0 {
		a.Key = &matches[0].Key
	}
	a.Why = explain(a, len(matches), q, problems)
	switch {
	case len(matches) == 0 && search.Narrowed:
		a.Unsure = fmt.Sprintf("no key of namespace %q has this token, and you may not list apikeys of other namespaces", search.Namespace)
	case a.Result == verify.RoleMissing && catalogue.Unread && sameNamespace(a.Key, q):
		a.Unsure = "you may not list apiroles, so the roles that the key's roles include are unknown; the key itself does not have all roles"
	}
	return a
}

func sameNamespace(key *v1alpha1.ApiKey, q Question) bool {
	return q.Route.Namespace == "" || key != nil && q.Route.Namespace == key.Namespace
}

// decide lets the verifier's own code decide on the keys with the digest. Other keys can't change the decision.
func decide(matches []Match, roles []v1alpha1.ApiRole, q Question, now time.Time) (verify.Decision, []string) {
	var problems []string
	logger := funcr.New(func(_, args string) { problems = append(problems, args) }, funcr.Options{})
	x := index.New(now, index.Options{})
	catalogue, source := x.Catalogue(), x.Source()
	catalogue.Replace(catalogueOf(roles))
	var entries []index.Entry
	for i := range matches {
		if entry, ok := feed.EntryOf(&matches[i].Key, logger); ok {
			entries = append(entries, entry)
		}
	}
	source.Replace(entries)
	text := q.Token.Reveal()
	prefix, _, _ := strings.Cut(text, "_")
	reader := verify.Reader{Prefixes: []string{prefix}}
	request := &verify.Request{Credential: reader.Token(text), Address: q.From.Unmap(), Route: q.Route}
	return verify.Decide(x, request, now), problems
}

func catalogueOf(roles []v1alpha1.ApiRole) *access.Catalogue {
	entries := make([]access.Role, len(roles))
	for i := range roles {
		entries[i] = access.Role{Name: roles[i].Name, Includes: roles[i].Spec.Includes}
	}
	return access.NewCatalogue(entries)
}

// explain says in words why a decision is as it is.
func explain(a Answer, matches int, q Question, problems []string) string {
	switch {
	case len(problems) > 0:
		return "the ApiKey has a field that can't be read: " + strings.Join(problems, "; ")
	case matches > 1:
		return fmt.Sprintf("%d ApiKeys have this token, and verifiers accept none of them", matches)
	}
	switch a.Result {
	case verify.Unknown:
		if a.Key != nil {
			return "the key is being deleted, or was marked as expired"
		}
		return "no ApiKey has this token: its key was deleted or got another token, or the token was never issued in this cluster"
	case verify.Expired:
		return "the expiry time of the key has passed"
	case verify.Suspended:
		return "spec.suspend of the key is true"
	case verify.AddressDenied:
		if !q.From.IsValid() {
			return "the key may be used only from " + strings.Join(a.Key.Spec.CIDRs, ", ") + ", and the client address is unknown; give it with --from"
		}
		return fmt.Sprintf("the key may be used only from %s, and %s is outside", strings.Join(a.Key.Spec.CIDRs, ", "), q.From)
	case verify.BadRoute:
		return q.Route.Problem
	case verify.RoleMissing:
		if !sameNamespace(a.Key, q) {
			return fmt.Sprintf("the key is in namespace %q, and the route wants a key of namespace %q", a.Key.Namespace, q.Route.Namespace)
		}
		return "the key lacks a role that the route requires; it has " + strings.Join(a.Key.Spec.Roles, ", ") + " and what these include"
	case verify.Allowed:
		return "the key carries what the route requires"
	default:
		return "the token can't be read"
	}
}

// ErrNoToken says that a text is not a token.
var ErrNoToken = errors.New("this is not a token: a token has the form <prefix>_<49 letters and digits>, and ends in a checksum, which is wrong here")
