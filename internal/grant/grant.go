// Package grant decides by the role catalogue and the policies whether a key may be issued. It must not read a clock, handle
// tokens or write anything. What it can't parse, it refuses.
//
// A judgement is a chain of rules about the cluster (rules.go). The last rule checks the demands of each policy
// (demands.go). To add a rule, write a function and add a line to chain. To add a demand, write a function and add a line to
// demands. docs/architecture/extending.md lists what else a field of ApiKeyPolicy needs.
package grant

import (
	"cmp"
	"slices"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// Terms is what one policy allows.
type Terms struct {
	// Name is the name of the policy, for messages.
	Name string
	// Selects reports whether the policy applies to a namespace with these labels. If nil, it applies to every namespace.
	Selects func(labels map[string]string) bool
	// Roles are roles, prefixes that end in .*, or *. If empty, the policy allows no role.
	Roles []string
	// MaxLifetime is the longest lifetime; 0 means no limit.
	MaxLifetime time.Duration
	// AllowedCIDRs are the networks within which a key's networks must lie. If empty, all networks are allowed.
	AllowedCIDRs []string
	// RequireExpiry refuses keys that never expire.
	RequireExpiry bool
	// RequiredAttributes are the names of attributes that a key must have.
	RequiredAttributes []string
	// AllowedAttributes are the values that a key's attributes may have, by name. Attributes that are not listed may have any value.
	AllowedAttributes map[string][]string
	// Unreadable says what in the policy is invalid, or is empty. An invalid policy allows nothing.
	Unreadable string
}

// Request is what a key requests.
type Request struct {
	// Namespace is the namespace of the key.
	Namespace string
	// Labels are the labels of the namespace.
	Labels map[string]string
	// Roles are the roles in the key's spec, without those that they include.
	Roles []string
	// Never says that the key does not expire. Otherwise Lifetime is its lifetime, and Expiry the expiry in its spec, for messages.
	Never    bool
	Lifetime time.Duration
	Expiry   string
	// Shrinks says that Lifetime decreases while the key is pending.
	Shrinks bool
	// CIDRs are the networks that the key may be used from. If empty, it may be used from any network.
	CIDRs []string
	// Attributes are the values of the key's attributes, by name.
	Attributes map[string]string
}

// Outcome is the result of a judgement.
type Outcome int

const (
	// Unjudged is the zero value. It allows nothing.
	Unjudged Outcome = iota
	// Allowed says that the key may be issued.
	Allowed
	// UnknownRole says that the catalogue lacks a role that the key names.
	UnknownRole
	// NotAllowed says that no policy allows everything that the key requests.
	NotAllowed
)

// Verdict is the answer to a [Request].
type Verdict struct {
	Outcome Outcome
	// Message says what was refused, by which policy, and what would be allowed. Cure says what to do about it. Both depend on the
	// request and the rules, not on the time left, and are empty if the key is allowed. Message has at most [MaxMessage] bytes.
	Message, Cure string
	// Wait is the time after which the verdict may change by itself; 0 means that it can't.
	Wait time.Duration
}

// Rules is a compiled catalogue with compiled policies. It is immutable, and so safe for concurrent use.
type Rules struct {
	// Catalogue is the role catalogue of the cluster.
	Catalogue *access.Catalogue
	policies  []policy
	// If set, an empty catalogue, or an empty set of policies, allows nothing instead of everything.
	requireCatalogue, requirePolicy bool
}

// NewRules compiles policies. The require arguments make an empty catalogue, or an empty set of policies, refuse every key.
func NewRules(catalogue *access.Catalogue, policies []Terms, requireCatalogue, requirePolicy bool) *Rules {
	r := &Rules{Catalogue: catalogue, requireCatalogue: requireCatalogue, requirePolicy: requirePolicy}
	for _, terms := range policies {
		r.policies = append(r.policies, compile(terms))
	}
	slices.SortFunc(r.policies, func(a, b policy) int { return cmp.Compare(a.Name, b.Name) })
	return r
}

// AllowAll reports whether no rule can refuse any key.
func (r *Rules) AllowAll() bool {
	return !slices.ContainsFunc(chain, func(rule rule) bool { return rule.applies(r) })
}

// AskNamespace reports whether verdicts depend on the labels of the key's namespace.
func (r *Rules) AskNamespace() bool { return len(r.policies) > 0 }

// Judge returns the verdict of the first rule that refuses the request, or a verdict with the outcome [Allowed].
func (r *Rules) Judge(request Request) Verdict {
	for _, rule := range chain {
		if !rule.applies(r) {
			continue
		}
		if verdict := rule.judge(r, request); verdict.Outcome != Allowed {
			return verdict
		}
	}
	return Verdict{Outcome: Allowed}
}
