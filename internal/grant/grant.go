// Package grant says whether a key may be issued, by the catalogue of roles and by policies. Nothing here may read a clock, know a token
// or write anything, and what can't be parsed is not allowed.
//
// A judgement is a chain of rules about the cluster (rules.go); the last of them asks each policy for its demands (demands.go). A new rule
// is a function and a line in chain, a new demand a function and a line in demands.
package grant

import (
	"cmp"
	"slices"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// Terms are what one policy allows.
type Terms struct {
	// Name is that of the policy, for messages.
	Name string
	// Selects tells whether the policy speaks for a namespace with these labels. Nil speaks for every one.
	Selects func(labels map[string]string) bool
	// Roles are roles, prefixes with a final .*, or *. None allows none.
	Roles []string
	// MaxLifetime is the longest life; 0 is any.
	MaxLifetime time.Duration
	// AllowedCIDRs are the networks that a key's must lie within. None demands nothing.
	AllowedCIDRs []string
	// RequireExpiry refuses what never expires.
	RequireExpiry bool
	// Unreadable says what about the policy its reader could not understand. Such a policy allows nothing.
	Unreadable string
}

// Request is what a key asks for.
type Request struct {
	// Namespace is the key's.
	Namespace string
	// Labels are the namespace's.
	Labels map[string]string
	// Roles are those that the key names itself.
	Roles []string
	// Never says that the key does not expire; else Lifetime is the length of its life, and Expiry what its spec says of it, for
	// the message.
	Never    bool
	Lifetime time.Duration
	Expiry   string
	// Shrinks says that Lifetime becomes less while the key waits.
	Shrinks bool
	// CIDRs are the networks that the key may be used from; none means any.
	CIDRs []string
}

// Outcome is what a judgement comes to.
type Outcome int

const (
	// Unjudged is the zero value, and allows nothing.
	Unjudged Outcome = iota
	// Allowed says that the key may be issued.
	Allowed
	// UnknownRole says that the catalogue lacks a role that the key names.
	UnknownRole
	// NotAllowed says that no policy allows all that the key asks for.
	NotAllowed
)

// Verdict is the answer to a Request.
type Verdict struct {
	Outcome Outcome
	// Message says what was refused, by which policy, and what would be allowed; Cure, what to do about it. Neither changes with time
	// alone, and both are empty where the key is allowed. Message has at most MaxMessage bytes.
	Message, Cure string
	// Wait is how long until the passing of time alone may change the verdict; 0 means that it can't.
	Wait time.Duration
}

// Rules are a cluster's catalogue and policies, compiled. They never change, so that any number of goroutines may ask them.
type Rules struct {
	// Catalogue is the roles that the cluster knows.
	Catalogue *access.Catalogue
	policies  []policy
	// With these, an empty catalogue, and an empty set of policies, allow nothing instead of everything.
	requireCatalogue, requirePolicy bool
}

// NewRules compiles policies.
func NewRules(catalogue *access.Catalogue, policies []Terms, requireCatalogue, requirePolicy bool) *Rules {
	r := &Rules{Catalogue: catalogue, requireCatalogue: requireCatalogue, requirePolicy: requirePolicy}
	for _, terms := range policies {
		r.policies = append(r.policies, compile(terms))
	}
	slices.SortFunc(r.policies, func(a, b policy) int { return cmp.Compare(a.Name, b.Name) })
	return r
}

// AllowAll tells whether there is nothing that a key could be refused for.
func (r *Rules) AllowAll() bool {
	return !slices.ContainsFunc(chain, func(rule rule) bool { return rule.applies(r) })
}

// AskNamespace tells whether a judgement depends on the labels of the key's namespace.
func (r *Rules) AskNamespace() bool { return len(r.policies) > 0 }

// Judge answers a request: the first rule that refuses it gives the verdict.
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
