package issuing

import (
	"context"
	"errors"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/grant"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
)

// askRules asks whether the key may be issued, or, once it is out, whether it still would be. It costs no request. A key that is out does
// not hang on the answer.
func (r *Reconciler) askRules(ctx context.Context, s *scope) error {
	verdict, err := r.Rules.Judge(ctx, s.key, s.now)
	switch {
	case err == nil:
		s.verdict = verdict
		s.asked.Rules, s.asked.Wait = answer(verdict.Outcome), verdict.Wait
	case errors.Is(err, rulebook.ErrUnread) || !s.plan.State.Unissued():
		s.asked.Rules = lifecycle.Unread
	default:
		return err
	}
	return nil
}

// answer is what an outcome means for the life of a key.
func answer(outcome grant.Outcome) lifecycle.Rules {
	switch outcome {
	case grant.Allowed:
		return lifecycle.Allowed
	case grant.UnknownRole, grant.NotAllowed:
		return lifecycle.Refused
	default:
		return lifecycle.Unread
	}
}

// assertAllowed is asked right before a token is minted or confirmed: the rules may have changed while the pass waited for an
// answer.
func (r *Reconciler) assertAllowed(ctx context.Context, s *scope) error {
	verdict, err := r.Rules.Judge(ctx, s.key, s.now)
	if err != nil {
		return err
	}
	s.verdict = verdict
	if verdict.Outcome != grant.Allowed {
		return errStale
	}
	return nil
}

// tellUnread is for a key that can't be judged, since the rules have not been read, and that was told nothing else.
func (r *Reconciler) tellUnread(ctx context.Context, s *scope) error {
	unread := r.Rules.Unread()
	if len(unread) == 0 {
		return errStale // they came meanwhile
	}
	return r.write(ctx, s, rulesUnread{unread})
}

// takeBack takes back a token that was committed, but not confirmed, and tells why the key waits: first its digest goes, so that no
// verifier accepts it any more and no other operator goes on with it, and then its Secret, if that was this key's. status.secretName stays
// until that is done, so that a crash in between leaves nothing behind.
func (r *Reconciler) takeBack(ctx context.Context, s *scope) error {
	secret, err := r.readSecret(ctx, s.key)
	if err != nil {
		return err
	}
	found := whose(secret, s.key)
	if err := r.write(ctx, s, refused{verdict: s.verdict}); err != nil {
		return err
	}
	if found == delivered || found == planted {
		if err := r.deleteSecret(ctx, s, secret); err != nil {
			return err
		}
	}
	return r.write(ctx, s, refused{verdict: s.verdict, nothingLeft: true})
}

// needsPass tells, in memory, whether a pass would tell the key something else about roles and policies than its status does.
func (r *Reconciler) needsPass(ctx context.Context, key *v1alpha1.ApiKey) bool {
	state := facts.State(key)
	if !state.Alive() {
		return false
	}
	verdict, err := r.Rules.Judge(ctx, key, r.Clock.Now())
	if err != nil {
		return false // a change of what is missing brings it here again
	}
	allowed := verdict.Outcome == grant.Allowed
	if !state.Unissued() {
		told := key.Condition(v1alpha1.ConditionOutOfPolicy)
		if allowed {
			return told != nil
		}
		return told == nil || told.Message != outOfPolicyMessage(verdict)
	}
	told := key.Condition(v1alpha1.ConditionReady)
	switch {
	case !allowed:
		return told == nil || told.Reason != string(refusals[verdict.Outcome]) || told.Message != refusalMessage(verdict)
	case told == nil:
		return false // it is in the queue
	default:
		return state.AwaitsRules()
	}
}

// mustWait tells, in memory, whether a key is to be issued and can't be, or whether its namespace is one that may refuse it.
func (r *Reconciler) mustWait(ctx context.Context, key *v1alpha1.ApiKey) bool {
	state := facts.State(key)
	if !state.Unissued() {
		return false
	}
	if _, shut := r.gates.round(key.Namespace); shut || state == lifecycle.Held || state == lifecycle.Conflicted {
		return true
	}
	verdict, err := r.Rules.Judge(ctx, key, r.Clock.Now())
	return err == nil && verdict.Outcome != grant.Allowed
}
