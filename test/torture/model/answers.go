package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

func (w *world) judgeAnswers() []Violation {
	var found []Violation
	for _, a := range w.answers {
		wrong := func(rule, cause, expected, got string) {
			found = append(found, Violation{
				Rule: rule, Subject: cmp.Or(a.Digest, a.Verifier), Cause: cause, At: a.Start, Who: a.Verifier + " over " + a.Protocol,
				Expected: expected, Got: got,
			})
		}
		results, cause, detail := w.results(a)
		if !slices.Contains(results, a.Result) {
			wrong(RuleAnswer, cause, strings.TrimSuffix(fmt.Sprintf("one of %v, since %s: %s", results, cause, detail), ": "), string(a.Result))
			continue
		}
		if a.Result != Allowed {
			continue
		}
		t := w.tokens[a.Digest]
		if uid := t.key.last().UID; a.UID != "" && a.UID != uid {
			wrong(RuleIdentity, "", "uid "+uid, "uid "+a.UID)
		}
		if expected := w.wrongRoles(a, t); expected != "" {
			wrong(RuleAnswer, "it tells all roles", expected, fmt.Sprint(a.Roles))
		}
	}
	return found
}

// wrongRoles says what is wrong with the roles that an answer returns, or "".
func (w *world) wrongRoles(a Answer, t *token) string {
	if a.Roles == nil {
		return ""
	}
	may, must := w.roles(t.key.last().Roles, w.horizon(a.Verifier, a.Start), a.End)
	for _, role := range a.Roles {
		if !may[role] {
			return "no role " + role
		}
	}
	for role := range must {
		if !slices.Contains(a.Roles, role) {
			return "the role " + role
		}
	}
	return ""
}

// unanswered returns the results that say nothing about the credential: there is no answer, or the verifier may not know the keys.
func (w *world) unanswered(a Answer) []Result {
	var possible []Result
	if w.disturbed("", a.Start, a.End, a.Verifier, Machine) {
		possible = append(possible, Unreachable)
	}
	// The verifier asks the API server who calls /introspect, and waits for its answer.
	if a.Protocol == Introspection && w.disturbed("", a.Start.Add(-w.Watch), a.End, APIServer, Etcd) {
		possible = append(possible, Unreachable, NotReady)
	}
	if w.mustBeStale(a) || w.mayBeStale(a) {
		possible = append(possible, NotReady)
	}
	return possible
}

// results returns all results that a possible state explains, and why there are no others.
func (w *world) results(a Answer) (possible []Result, cause, detail string) {
	add := func(r Result) {
		possible = append(possible, asTold(a.Protocol, r))
	}
	for _, result := range w.unanswered(a) {
		add(result)
	}
	if w.mustBeStale(a) {
		return possible, "the API server was silent for --max-staleness", ""
	}
	switch a.Credential {
	case NoToken:
		add(NoCredential)
		return possible, "the request has no credential", ""
	case Malformed:
		add(InvalidToken)
		return possible, "the credential is malformed", ""
	case Token:
	}
	t := w.tokens[a.Digest]
	if t == nil {
		add(InvalidToken)
		return possible, "no key ever had this digest", ""
	}
	horizon := w.horizon(a.Verifier, a.Start)
	if t.begin.After(horizon) || !t.mayEnd.IsZero() && !a.End.Before(t.mayEnd) || !a.End.Before(t.deadline) ||
		!a.End.Before(orNever(t.retires)) {
		add(InvalidToken)
	}
	switch {
	case !t.end.IsZero() && !t.end.After(horizon):
		return possible, "its end is known", fmt.Sprintf("it was seen at %s, and the verifier knows all until %s", face(t.end), face(horizon))
	case !a.Start.Before(t.deadline):
		return possible, "its deadline has passed", "it was at " + face(t.deadline)
	case !a.Start.Before(orNever(t.retires)) && !t.retiring.After(horizon):
		return possible, "its overlap has passed", fmt.Sprintf("it was retiring until %s, and the verifier knows all until %s", face(t.retires), face(horizon))
	}
	off, surely := w.suspended(t.key, horizon, a.End)
	if off {
		add(InvalidToken)
	}
	if surely {
		return possible, "it is suspended", "the verifier knows all until " + face(horizon)
	}
	alive, cause, detail := w.alive(a, t.key.last(), horizon)
	for _, result := range alive {
		add(result)
	}
	return possible, cause, detail
}

// asTold returns a result as a client of the protocol sees it.
func asTold(protocol string, r Result) Result {
	if protocol == TokenReview || protocol == Introspection {
		switch r {
		case NoCredential, InvalidToken, Forbidden, RoleMissing:
			return Refused
		default:
		}
	}
	return r
}

// alive returns the possible results for a key that is issued, not suspended and not expired.
func (w *world) alive(a Answer, spec Key, horizon time.Time) (possible []Result, cause, detail string) {
	inside := len(spec.Networks) == 0
	for _, network := range spec.Networks {
		inside = inside || network.Contains(a.Address.Unmap())
	}
	routed := a.Protocol == ForwardAuth || a.Protocol == ExtAuthz
	switch {
	case routed && a.Role == "" && a.Namespace == "":
		return []Result{Forbidden}, "the route asks for nothing", ""
	case !inside:
		return []Result{Forbidden}, "the address is outside of its networks", fmt.Sprintf("%s and %v", a.Address, spec.Networks)
	case a.Namespace != "" && a.Namespace != spec.Namespace:
		return []Result{RoleMissing}, "it is of another namespace", "of " + spec.Namespace
	}
	may, must := w.roles(spec.Roles, horizon, a.End)
	if a.Role == "" || may[a.Role] {
		possible = append(possible, Allowed)
	}
	if a.Role != "" && !must[a.Role] {
		possible = append(possible, RoleMissing)
	}
	return possible, "the key lives", fmt.Sprintf("it may carry %v and must carry %v", slices.Sorted(maps.Keys(may)), slices.Sorted(maps.Keys(must)))
}

// judgeReturns finds tokens that a verifier accepted after it had refused them permanently. It needs no tolerance. A refusal is not
// permanent if a suspension may be its reason.
func (w *world) judgeReturns() []Violation {
	type pair struct{ verifier, digest string }
	var found []Violation
	let, refused := map[pair]time.Time{}, map[pair]time.Time{} // when the first such answer was received
	byEnd := slices.SortedStableFunc(slices.Values(w.answers), func(a, b Answer) int { return a.End.Compare(b.End) })
	for _, a := range byEnd {
		p := pair{a.Verifier, a.Digest}
		switch a.Result {
		case Allowed:
			if at, ok := refused[p]; ok && a.Start.After(at) {
				found = append(found, Violation{
					Rule: RuleBack, Subject: a.Digest, At: a.Start, Who: a.Verifier + " over " + a.Protocol,
					Expected: "no acceptance after the refusal at " + face(at), Got: string(a.Result),
				})
			}
			if _, ok := let[p]; !ok {
				let[p] = a.End
			}
		case InvalidToken:
			first, ok := let[p]
			if _, before := refused[p]; ok && !before && a.Start.After(first) && !w.mayBeSuspended(a) {
				refused[p] = a.End
			}
		default:
		}
	}
	return found
}

// mayBeSuspended tells whether the key of an answer may have been suspended when the answer was given.
func (w *world) mayBeSuspended(a Answer) bool {
	t := w.tokens[a.Digest]
	if t == nil {
		return false
	}
	may, _ := w.suspended(t.key, w.horizon(a.Verifier, a.Start), a.End)
	return may
}

// judgeBytes finds refusals of a key that a client can tell from the refusal of a token that no key ever had.
func (w *world) judgeBytes() []Violation {
	unknown := map[string]Answer{}
	refusals := make([]Answer, 0, len(w.answers))
	for _, a := range w.answers {
		if a.Bytes == "" || a.Result != InvalidToken && a.Result != Refused {
			continue
		}
		refusals = append(refusals, a)
		if _, known := unknown[a.Protocol]; !known && a.Credential == Token && w.tokens[a.Digest] == nil {
			unknown[a.Protocol] = a
		}
	}
	var found []Violation
	for _, a := range refusals {
		if like, ok := unknown[a.Protocol]; ok && like.Bytes != a.Bytes {
			found = append(found, Violation{
				Rule: RuleTells, Subject: cmp.Or(a.Digest, a.Verifier), At: a.Start, Who: a.Verifier + " over " + a.Protocol,
				Expected: "the bytes " + like.Bytes + " of the answer for an unknown token", Got: a.Bytes,
			})
		}
	}
	return found
}
