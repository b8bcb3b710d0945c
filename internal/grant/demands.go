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

// demand is one thing that a policy may want of a key. It reads that from the policy's terms, once, and returns what each key is checked
// by; nil where the policy wants nothing of it. An error names what can't be understood: the policy then allows nothing.
type demand func(Terms) (check, error)

// demands is every demand, in the order in which refusals are told.
var demands = []demand{
	rolesAreAllowed,
	networksLieWithin,
	lifeIsShortEnough,
}

// check tells what of a key is refused; the zero refusal for nothing.
type check func(*question) refusal

// question is what a key asks for, and what it carries by that.
type question struct {
	Request
	catalogue *access.Catalogue
	carried   []string // the key's roles, and all that they include
}

// refusal is what a policy does not allow of a key, and what it would, in words.
type refusal struct {
	what string
	// wait is how long until the passing of time alone removes the refusal; 0 means that it never does.
	wait time.Duration
}

// policy is Terms in the form in which they are asked.
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

// refusals are what the policy does not allow, each with what it would; none means that it allows the key. wait is not zero where time
// alone removes them all.
func (p *policy) refusals(q *question) (refused []string, wait time.Duration) {
	if p.Unreadable != "" {
		return []string{"everything, since it can't be understood: " + p.Unreadable}, 0
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

// rolesAreAllowed wants each role that a key carries, by itself or by another, to be one of Terms.Roles.
func rolesAreAllowed(terms Terms) (check, error) {
	every, exact := false, map[string]bool{}
	var prefixes []string
	for _, role := range terms.Roles {
		switch prefix, wild := strings.CutSuffix(role, "*"); {
		case role == "*":
			every = true
		case strings.Contains(prefix, "*") || wild && (!strings.HasSuffix(prefix, ".") || prefix == "."):
			return nil, errors.New("the role " + strconv.Quote(role))
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

// bearer is the first of the key's own roles through which it carries another.
func (q *question) bearer(carried string) string {
	for _, role := range q.Roles {
		if slices.Contains(q.catalogue.Closure([]string{role}), carried) {
			return role
		}
	}
	return ""
}

// networksLieWithin wants each network of a key to lie within a single one of Terms.AllowedCIDRs, and a key to have one. Two allowed
// halves do not make a whole: the question stays simple, and errs on the safe side.
func networksLieWithin(terms Terms) (check, error) {
	allowed := make([]netip.Prefix, 0, len(terms.AllowedCIDRs))
	for _, cidr := range terms.AllowedCIDRs {
		network, ok := parseNetwork(cidr)
		if !ok {
			return nil, errors.New("the network " + strconv.Quote(cidr))
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

// parseNetwork reads a network as the schema of the CRDs demands it: no host bits, and IPv4 not mapped into IPv6.
func parseNetwork(text string) (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(text)
	if err != nil || network != network.Masked() || network.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return network, true
}

// lifeIsShortEnough wants a key to live no longer than Terms.MaxLifetime, and to end where Terms.RequireExpiry says so.
func lifeIsShortEnough(terms Terms) (check, error) {
	if terms.MaxLifetime < 0 {
		return nil, errors.New("a maxLifetime of less than nothing")
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
