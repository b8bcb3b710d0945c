package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// A message is for a person to read: beyond these it counts what it does not name.
	maxNamed    = 5
	maxRefusals = 8
	// MaxMessage is the most bytes that a verdict's message has. Names of 253 characters could make it long.
	MaxMessage = 4096
)

// Terms are what one policy allows.
type Terms struct {
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
	Namespace string
	// Labels are the namespace's.
	Labels map[string]string
	Roles  []string
	// Never says that the key does not expire; else Lifetime is the length of its life, and Expiry what its spec says of it, for
	// the message.
	Never    bool
	Lifetime time.Duration
	Expiry   string
	// Shrinks says that Lifetime becomes less while the key waits.
	Shrinks bool
	CIDRs   []string
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
	// alone, and both are empty where the key is allowed.
	Message, Cure string
	// Wait is how long until the passing of time alone may change the verdict; 0 means that it can't.
	Wait time.Duration
}

// Rules are a cluster's catalogue and policies, compiled. They never change, so that any number of goroutines may ask them.
type Rules struct {
	Catalogue *Catalogue
	policies  []compiled
	// With these, an empty catalogue, and an empty set of policies, allow nothing instead of everything.
	requireCatalogue, requirePolicy bool
}

// NewRules compiles policies.
func NewRules(catalogue *Catalogue, policies []Terms, requireCatalogue, requirePolicy bool) *Rules {
	r := &Rules{Catalogue: catalogue, requireCatalogue: requireCatalogue, requirePolicy: requirePolicy}
	for _, terms := range policies {
		r.policies = append(r.policies, compile(terms))
	}
	slices.SortFunc(r.policies, func(a, b compiled) int { return cmp.Compare(a.Name, b.Name) })
	return r
}

// AllowAll tells whether there is nothing that a key could be refused for.
func (r *Rules) AllowAll() bool {
	return r.Catalogue.Empty() && !r.requireCatalogue && len(r.policies) == 0 && !r.requirePolicy
}

// AskNamespace tells whether a judgement depends on the labels of the key's namespace.
func (r *Rules) AskNamespace() bool { return len(r.policies) > 0 }

// Judge answers a request.
func (r *Rules) Judge(request Request) Verdict {
	if r.AllowAll() {
		return Verdict{Outcome: Allowed}
	}
	if message := r.unknownRoles(request.Roles); message != "" {
		return Verdict{
			Outcome: UnknownRole, Message: clip(message, MaxMessage),
			Cure: "the key is issued as soon as its roles are there; if a name is wrong, delete this ApiKey and create one with roles of " +
				"`kubectl get apiroles`",
		}
	}
	if len(r.policies) == 0 {
		if r.requirePolicy {
			return Verdict{
				Outcome: NotAllowed,
				Message: "the cluster has no ApiKeyPolicy, and the operator runs with --require-policy, so that no key is allowed",
				Cure:    "the key is issued as soon as a policy allows it",
			}
		}
		return Verdict{Outcome: Allowed}
	}
	return r.judgePolicies(request)
}

func (r *Rules) unknownRoles(roles []string) string {
	if r.Catalogue.Empty() {
		if !r.requireCatalogue {
			return ""
		}
		return "the catalogue has no ApiRole at all, and the operator runs with --require-catalogue, so that every role is unknown: " +
			enumerate(roles)
	}
	var unknown []string
	for _, role := range roles {
		if !r.Catalogue.Knows(role) {
			unknown = append(unknown, role)
		}
	}
	if len(unknown) == 0 {
		return ""
	}
	return "the catalogue has no ApiRole " + enumerate(unknown)
}

func (r *Rules) judgePolicies(request Request) Verdict {
	verdict := Verdict{
		Outcome: NotAllowed,
		Cure:    "delete this ApiKey and create one that asks for less, or have a policy changed, and the key is issued",
	}
	carried := r.Catalogue.Closure(request.Roles)
	var refusals []string
	for _, p := range r.policies {
		if p.Selects != nil && p.Unreadable == "" && !p.Selects(request.Labels) {
			continue // not named, or a policy for others would change what is told of every key
		}
		refused, wait := r.refusals(p, request, carried)
		if len(refused) == 0 {
			return Verdict{Outcome: Allowed}
		}
		refusals = append(refusals, fmt.Sprintf("policy %q refuses %s", p.Name, strings.Join(refused, ", and ")))
		if wait > 0 && (verdict.Wait == 0 || wait < verdict.Wait) {
			verdict.Wait = wait
		}
	}
	if n := len(refusals) - maxRefusals; n > 0 {
		refusals = append(refusals[:maxRefusals], fmt.Sprintf("%d more policies refuse it too", n))
	}
	if len(refusals) == 0 {
		refusals = append(refusals, fmt.Sprintf("none selects namespace %q", request.Namespace))
	}
	verdict.Message = clip("no ApiKeyPolicy allows this key: "+strings.Join(refusals, "; "), MaxMessage)
	return verdict
}

// refusals are what a policy does not allow of a request, each with what it would. wait is not zero where time alone will
// remove them all.
func (r *Rules) refusals(p compiled, request Request, carried []string) (refused []string, wait time.Duration) {
	if p.Unreadable != "" {
		return []string{"everything, since it can't be understood: " + p.Unreadable}, 0
	}
	if denied := p.deniedRoles(carried); len(denied) > 0 {
		for i, role := range denied[:min(len(denied), maxNamed)] {
			if !slices.Contains(request.Roles, role) {
				denied[i] = fmt.Sprintf("%s (included by %s)", role, r.bearer(request.Roles, role))
			}
		}
		refused = append(refused, fmt.Sprintf("the role %s (it allows %s)", enumerate(denied), enumerate(p.Roles)))
	}
	if denied := p.deniedNetworks(request.CIDRs); len(denied) > 0 {
		refused = append(refused, fmt.Sprintf("the network %s (each must lie within one of %s)", enumerate(denied), enumerate(p.AllowedCIDRs)))
	} else if len(p.AllowedCIDRs) > 0 && len(request.CIDRs) == 0 {
		refused = append(refused, fmt.Sprintf("a key without cidrs (each must lie within one of %s)", enumerate(p.AllowedCIDRs)))
	}
	switch {
	case request.Never && p.MaxLifetime > 0:
		refused = append(refused, fmt.Sprintf("expiry.never (its maxLifetime is %s)", days(p.MaxLifetime)))
	case request.Never && p.RequireExpiry:
		refused = append(refused, "expiry.never (it requires expiry.after or expiry.at)")
	case !request.Never && p.MaxLifetime > 0 && request.Lifetime > p.MaxLifetime:
		if request.Shrinks && len(refused) == 0 {
			wait = request.Lifetime - p.MaxLifetime
		}
		refused = append(refused, fmt.Sprintf("expiry.%s (its maxLifetime is %s)", request.Expiry, days(p.MaxLifetime)))
	}
	return refused, wait
}

// bearer is the first of the key's own roles through which it carries another.
func (r *Rules) bearer(roles []string, carried string) string {
	for _, role := range roles {
		if slices.Contains(r.Catalogue.Closure([]string{role}), carried) {
			return role
		}
	}
	return ""
}

// compiled is a policy in the form in which it is asked.
type compiled struct {
	Terms
	any      bool
	exact    map[string]bool
	prefixes []string
	networks []netip.Prefix
}

func compile(terms Terms) compiled {
	c := compiled{Terms: terms, exact: map[string]bool{}}
	for _, role := range terms.Roles {
		switch prefix, wild := strings.CutSuffix(role, "*"); {
		case role == "*":
			c.any = true
		case strings.Contains(prefix, "*") || wild && (!strings.HasSuffix(prefix, ".") || prefix == "."):
			c.unreadable("the role " + strconv.Quote(role))
		case wild:
			c.prefixes = append(c.prefixes, prefix)
		default:
			c.exact[role] = true
		}
	}
	for _, cidr := range terms.AllowedCIDRs {
		network, ok := parseNetwork(cidr)
		if !ok {
			c.unreadable("the network " + strconv.Quote(cidr))
		}
		c.networks = append(c.networks, network)
	}
	if terms.MaxLifetime < 0 {
		c.unreadable("a maxLifetime of less than nothing")
	}
	return c
}

func (c *compiled) unreadable(what string) {
	if c.Unreadable == "" {
		c.Unreadable = what
	}
}

func (c *compiled) deniedRoles(roles []string) []string {
	if c.any {
		return nil
	}
	var denied []string
	for _, role := range roles {
		if c.exact[role] || slices.ContainsFunc(c.prefixes, func(prefix string) bool {
			return len(role) > len(prefix) && strings.HasPrefix(role, prefix)
		}) {
			continue
		}
		denied = append(denied, role)
	}
	return denied
}

// deniedNetworks are those that lie within no single allowed one, or can't be understood. Two allowed halves do not make a whole: the
// question stays simple, and errs on the safe side.
func (c *compiled) deniedNetworks(cidrs []string) []string {
	if len(c.networks) == 0 {
		return nil
	}
	var denied []string
	for _, cidr := range cidrs {
		network, ok := parseNetwork(cidr)
		if !ok || !slices.ContainsFunc(c.networks, func(allowed netip.Prefix) bool {
			return allowed.Bits() <= network.Bits() && allowed.Contains(network.Addr())
		}) {
			denied = append(denied, cidr)
		}
	}
	return denied
}

// parseNetwork reads a network as the schema of the CRDs demands it: no host bits, and IPv4 not mapped into IPv6.
func parseNetwork(text string) (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(text)
	if err != nil || network != network.Masked() || network.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return network, true
}

// enumerate names some, and counts the rest.
func enumerate(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

// days writes a duration as the API does.
func days(d time.Duration) string {
	var text strings.Builder
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := d / unit.size; n > 0 {
			fmt.Fprintf(&text, "%d%s", n, unit.name)
			d -= n * unit.size
		}
	}
	return text.String()
}

// clip cuts a message to a number of bytes, not within a character.
func clip(message string, limit int) string {
	if len(message) <= limit {
		return message
	}
	const mark = "..."
	return strings.ToValidUTF8(message[:limit-len(mark)], "") + mark
}
