package grant

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// demand is one requirement that a policy may have. It compiles the requirement from the policy's terms and returns the
// check for keys, or nil if the policy does not have that requirement. An error says what is invalid: the policy then allows
// nothing.
type demand func(Terms) (check, error)

// demands lists the requirements in the order in which refusals are reported.
var demands = []demand{
	rolesAreAllowed,
	networksLieWithin,
	lifeIsShortEnough,
	attributesArePresent,
	attributesAreAllowed,
}

// check returns what the policy refuses about a key, or the zero refusal if it refuses nothing.
type check func(*question) refusal

// question is a request with the roles that it leads to.
type question struct {
	Request
	catalogue *access.Catalogue
	carried   []string // the key's roles and the roles that those include
}

// refusal says in words what a policy refuses about a key, and what it would allow.
type refusal struct {
	what string
	// wait is the time after which the refusal ends by itself; 0 means that it does not.
	wait time.Duration
}

// policy is a compiled policy.
type policy struct {
	Terms
	checks []check
}

func compile(terms Terms) policy {
	p := policy{Terms: terms}
	for _, demand := range demands {
		check, err := demand(terms)
		if err != nil && p.Unreadable == "" {
			p.Unreadable = err.Error()
		}
		if check != nil {
			p.checks = append(p.checks, check)
		}
	}
	return p
}

// refusals returns what the policy refuses, each with what it would allow. If it returns none, the policy allows the key.
// wait is the time after which all refusals end by themselves; 0 means that they do not.
func (p *policy) refusals(q *question) (refused []string, wait time.Duration) {
	if p.Unreadable != "" {
		return []string{"every key because the policy is invalid: " + p.Unreadable}, 0
	}
	forGood := false
	for _, check := range p.checks {
		if r := check(q); r.what != "" {
			refused, wait = append(refused, r.what), max(wait, r.wait)
			forGood = forGood || r.wait == 0
		}
	}
	if forGood {
		wait = 0
	}
	return refused, wait
}

// rolesAreAllowed requires each role of a key, including the roles that its roles include, to be one of Terms.Roles.
func rolesAreAllowed(terms Terms) (check, error) {
	every, exact := false, map[string]bool{}
	var prefixes []string
	for _, role := range terms.Roles {
		switch prefix, wild := strings.CutSuffix(role, "*"); {
		case role == "*":
			every = true
		case strings.Contains(prefix, "*") || wild && (!strings.HasSuffix(prefix, ".") || prefix == "."):
			return nil, errors.New("spec.roles: invalid entry " + strconv.Quote(role))
		case wild:
			prefixes = append(prefixes, prefix)
		default:
			exact[role] = true
		}
	}
	if every {
		return nil, nil
	}
	isAllowed := func(role string) bool {
		return exact[role] || slices.ContainsFunc(prefixes, func(prefix string) bool {
			return len(role) > len(prefix) && strings.HasPrefix(role, prefix)
		})
	}
	return func(q *question) refusal {
		var denied []string
		for _, role := range q.carried {
			if !isAllowed(role) {
				denied = append(denied, role)
			}
		}
		if len(denied) == 0 {
			return refusal{}
		}
		for i, role := range denied[:min(len(denied), maxNamed)] {
			if !slices.Contains(q.Roles, role) {
				denied[i] = fmt.Sprintf("%s (included by %s)", role, q.bearer(role))
			}
		}
		return refusal{what: fmt.Sprintf("the role %s (it allows %s)", enumerate(denied), enumerate(terms.Roles))}
	}, nil
}

// bearer returns the first of the key's own roles that includes carried.
func (q *question) bearer(carried string) string {
	for _, role := range q.Roles {
		if slices.Contains(q.catalogue.Closure([]string{role}), carried) {
			return role
		}
	}
	return ""
}

// networksLieWithin requires a key to have networks, and each of them to lie within a single one of Terms.AllowedCIDRs. A
// network that only several entries together cover is refused, which keeps the check simple and safe.
func networksLieWithin(terms Terms) (check, error) {
	allowed := make([]netip.Prefix, 0, len(terms.AllowedCIDRs))
	for _, cidr := range terms.AllowedCIDRs {
		network, ok := parseNetwork(cidr)
		if !ok {
			return nil, errors.New("spec.allowedCIDRs: invalid network " + strconv.Quote(cidr))
		}
		allowed = append(allowed, network)
	}
	if len(allowed) == 0 {
		return nil, nil
	}
	isAllowed := func(cidr string) bool {
		network, ok := parseNetwork(cidr)
		return ok && slices.ContainsFunc(allowed, func(allowed netip.Prefix) bool {
			return allowed.Bits() <= network.Bits() && allowed.Contains(network.Addr())
		})
	}
	within := enumerate(terms.AllowedCIDRs)
	return func(q *question) refusal {
		if len(q.CIDRs) == 0 {
			return refusal{what: fmt.Sprintf("a key without cidrs (each must lie within one of %s)", within)}
		}
		var denied []string
		for _, cidr := range q.CIDRs {
			if !isAllowed(cidr) {
				denied = append(denied, cidr)
			}
		}
		if len(denied) == 0 {
			return refusal{}
		}
		return refusal{what: fmt.Sprintf("the network %s (each must lie within one of %s)", enumerate(denied), within)}
	}, nil
}

// parseNetwork parses a network as the schema of the CRDs requires it: without host bits, and IPv4 not mapped into IPv6.
func parseNetwork(text string) (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(text)
	if err != nil || network != network.Masked() || network.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return network, true
}

// lifeIsShortEnough requires that a key lives no longer than Terms.MaxLifetime, and that it expires if Terms.RequireExpiry
// is set.
func lifeIsShortEnough(terms Terms) (check, error) {
	if terms.MaxLifetime < 0 {
		return nil, errors.New("spec.maxLifetime: must not be negative")
	}
	return func(q *question) refusal {
		switch {
		case q.Never && terms.MaxLifetime > 0:
			return refusal{what: fmt.Sprintf("expiry.never (its maxLifetime is %s)", days(terms.MaxLifetime))}
		case q.Never && terms.RequireExpiry:
			return refusal{what: "expiry.never (it requires expiry.after or expiry.at)"}
		case !q.Never && terms.MaxLifetime > 0 && q.Lifetime > terms.MaxLifetime:
			r := refusal{what: fmt.Sprintf("expiry.%s (its maxLifetime is %s)", q.Expiry, days(terms.MaxLifetime))}
			if q.Shrinks {
				r.wait = q.Lifetime - terms.MaxLifetime
			}
			return r
		}
		return refusal{}
	}, nil
}
