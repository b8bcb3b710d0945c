package grant

import (
	"fmt"
	"strings"
)

// rule is a question that is asked about every key before it is issued.
type rule struct {
	// applies reports whether the rule can refuse any key in this cluster. If no rule applies, every key is allowed.
	applies func(*Rules) bool
	// judge returns a verdict with the outcome Allowed, or the verdict to report to the user.
	judge func(*Rules, Request) Verdict
}

// chain lists the rules in the order in which they are asked.
var chain = []rule{
	{(*Rules).hasCatalogue, (*Rules).knowsRoles},
	{(*Rules).hasPolicies, (*Rules).onePolicyAllows},
}

func (r *Rules) hasCatalogue() bool { return r.requireCatalogue || !r.Catalogue.Empty() }

// knowsRoles requires the catalogue to contain each role in the key's spec.
func (r *Rules) knowsRoles(request Request) Verdict {
	message := r.unknownRoles(request.Roles)
	if message == "" {
		return Verdict{Outcome: Allowed}
	}
	return Verdict{
		Outcome: UnknownRole, Message: clip(message, MaxMessage),
		Cure: "the key is issued as soon as its roles exist; if a name is wrong, delete this ApiKey and create one with roles that " +
			"`kubectl get apiroles` lists",
	}
}

func (r *Rules) unknownRoles(roles []string) string {
	if r.Catalogue.Empty() {
		return "the role catalogue is empty and the operator runs with --require-catalogue, so every role is unknown: " +
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

// onePolicyAllows requires that a single policy selects the key's namespace and allows everything that the key requests.
func (r *Rules) onePolicyAllows(request Request) Verdict {
	if len(r.policies) == 0 {
		return Verdict{
			Outcome: NotAllowed,
			Message: "the cluster has no ApiKeyPolicy, and the operator runs with --require-policy, so no key is allowed",
			Cure:    "the key is issued as soon as a policy allows it",
		}
	}
	verdict := Verdict{
		Outcome: NotAllowed,
		Cure:    "delete this ApiKey and create one that a policy allows, or have a policy changed to allow this key",
	}
	var asked *question // nil until a policy selects the namespace
	var refusals []string
	for _, p := range r.policies {
		if p.Selects != nil && p.Unreadable == "" && !p.Selects(request.Labels) {
			continue // not in the message, which would otherwise change with policies for other namespaces
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
