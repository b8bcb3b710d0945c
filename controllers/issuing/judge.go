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

// askRules asks whether the key may be issued, or, if it is issued, whether it would be issued again. It sends no request.
// If the rules can't judge an issued key, the pass continues without a verdict.
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

// answer converts an outcome of package grant to its meaning for the lifecycle.
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

// assertAllowed returns errStale unless the rules still allow the key. It is called immediately before a token is minted or
// confirmed, because the rules may have changed while the pass waited for a response.
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

// blockRotation writes to the status that roles or policies refuse the rotation that is due.
func (r *Reconciler) blockRotation(ctx context.Context, s *scope) error {
	return r.write(ctx, s, rotationRefused(s.verdict))
}

// tellUnread writes the status of a key that can't be judged because the rules have not been loaded.
func (r *Reconciler) tellUnread(ctx context.Context, s *scope) error {
	unread := r.Rules.Unread()
	if len(unread) == 0 {
		return errStale // they have been loaded meanwhile
	}
	return r.write(ctx, s, rulesUnread{unread})
}

// takeBack removes a token that was committed but not confirmed, because roles or policies no longer allow the key. It
// removes the digest first, so that verifiers stop accepting the token and no other operator continues to deliver it. Then
// it deletes the Secret, if that belongs to this key. status.secretName stays until the Secret is gone, so that a crash in
// between leaves nothing behind.
func (r *Reconciler) takeBack(ctx context.Context, s *scope) error {
	secret, err := r.readSecret(ctx, s.key)
	if err != nil {
		return err
	}
	found := whose(secret, s.key)
	if err := r.write(ctx, s, refused{verdict: s.verdict}); err != nil {
		return err
	}
	if found == ours {
		if err := r.deleteSecret(ctx, s, secret); err != nil {
			return err
		}
	}
	return r.write(ctx, s, refused{verdict: s.verdict, nothingLeft: true})
}

// needsPass reports whether a reconcile would change what the status says about roles and policies. It works in memory.
func (r *Reconciler) needsPass(ctx context.Context, key *v1alpha1.ApiKey) bool {
	state := facts.State(key)
	if !state.Alive() {
		return false
	}
	verdict, err := r.Rules.Judge(ctx, key, r.Clock.Now())
	if err != nil {
		return false // the event for what is missing enqueues the key again
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
		return false // it is already in the queue
	default:
		return state.AwaitsRules()
	}
}

// mustWait reports, in memory, whether a pending key can't be issued now, or is in a namespace that may refuse its Secret.
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
