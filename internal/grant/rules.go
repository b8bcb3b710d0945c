package grant

import (
	"fmt"
	"strings"
)

// rule is a question that every key is asked before it is issued.
type rule struct {
	// applies tells whether a cluster has anything to ask. Where no rule applies every key is allowed, unseen.
	applies func(*Rules) bool
	// judge answers with Allowed, or with the verdict that is told.
	judge func(*Rules, Request) Verdict
}

// chain is every rule, in the order in which they are asked.
var chain = []rule{
	{(*Rules).hasCatalogue, (*Rules).knowsRoles},
	{(*Rules).hasPolicies, (*Rules).onePolicyAllows},
}

func (r *Rules) hasCatalogue() bool { return r.requireCatalogue || !r.Catalogue.Empty() }

// knowsRoles wants each role that the key names to be in the catalogue.
func (r *Rules) knowsRoles(request Request) Verdict {
	message := r.unknownRoles(request.Roles)
	if message == "" {
		return Verdict{Outcome: Allowed}
	}
	return Verdict{
		Outcome: UnknownRole, Message: clip(message, MaxMessage),
		Cure: "the key is issued as soon as its roles are there; if a name is wrong, delete this ApiKey and create one with roles of " +
			"`kubectl get apiroles`",
	}
}

func (r *Rules) unknownRoles(roles []string) string {
	if r.Catalogue.Empty() {
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

func (r *Rules) hasPolicies() bool { return r.requirePolicy || len(r.policies) > 0 }

// onePolicyAllows wants a single policy that selects the key's namespace and allows all that it asks for.
func (r *Rules) onePolicyAllows(request Request) Verdict {
	if len(r.policies) == 0 {
		return Verdict{
			Outcome: NotAllowed,
			Message: "the cluster has no ApiKeyPolicy, and the operator runs with --require-policy, so that no key is allowed",
			Cure:    "the key is issued as soon as a policy allows it",
		}
	}
	verdict := Verdict{
		Outcome: NotAllowed,
		Cure:    "delete this ApiKey and create one that asks for less, or have a policy changed, and the key is issued",
	}
	var asked *question // once there is a policy to ask
	var refusals []string
	for _, p := range r.policies {
		if p.Selects != nil && p.Unreadable == "" && !p.Selects(request.Labels) {
			continue // not named, or a policy for others would change what is told of every key
		}
		if asked == nil {
			asked = &question{Request: request, catalogue: r.Catalogue, carried: r.Catalogue.Closure(request.Roles)}
		}
		refused, wait := p.refusals(asked)
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
