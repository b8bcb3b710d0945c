package issuing

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/controllers/timeline"
	"github.com/apikey-operator/apikey-operator/internal/policy"
)

// judge asks whether the key may be issued, or, once it is out, whether it still would be. It costs no request. A key that is out does
// not hang on the answer.
func (r *Reconciler) judge(ctx context.Context, s *scope) error {
	verdict, err := r.Rules.Judge(ctx, s.key, s.now)
	if err != nil && s.key.Status.IssuedAt == nil {
		return err
	}
	s.verdict = verdict
	return nil
}

// assertAllowed is asked right before a token is minted or confirmed: the rules may have changed while the pass waited for an
// answer.
func (r *Reconciler) assertAllowed(ctx context.Context, s *scope) error {
	if err := r.judge(ctx, s); err != nil {
		return err
	}
	if s.verdict.Outcome != policy.Allowed {
		return errStale
	}
	return nil
}

// unread is for a key that can't be judged, since the rules have not been read. What it was told stays, if that was something.
func (r *Reconciler) unread(ctx context.Context, s *scope) error {
	s.unread = true
	if told := readyReason(s.key); told != "" && told != v1alpha1.ReasonIssuing || s.key.Status.Hash != "" {
		return nil
	}
	unread := r.Rules.Unread()
	if len(unread) == 0 {
		return errStale // they came meanwhile
	}
	return r.write(ctx, s, finding{
		reason: v1alpha1.ReasonIssuing,
		message: "the operator has not been able to read the cluster's " + strings.Join(unread, ", ") +
			", and issues nothing before: its log says why; have config/crd and config/rbac been applied?",
	})
}

// refuse tells why the key waits. If a token was committed before, but not confirmed, it is taken back: first its digest, so that no
// verifier accepts it any more and no other operator goes on with it, and then its Secret, if that was this key's. status.secretName stays
// until that is done, so that a crash in between leaves nothing behind.
func (r *Reconciler) refuse(ctx context.Context, s *scope) error {
	f := finding{reason: refusals[s.verdict.Outcome], message: s.verdict.Message + "; " + s.verdict.Cure}
	if s.key.Status.SecretName == "" {
		return r.write(ctx, s, f)
	}
	secret, err := r.readSecret(ctx, s.key)
	if err != nil {
		return err
	}
	found := whose(secret, s.key)
	if err := r.write(ctx, s, f); err != nil {
		return err
	}
	if found == delivered || found == planted {
		if err := r.deleteSecret(ctx, s, secret); err != nil {
			return err
		}
	}
	f.takenBack = true
	return r.write(ctx, s, f)
}

var refusals = map[policy.Outcome]v1alpha1.Reason{
	policy.UnknownRole: v1alpha1.ReasonUnknownRole,
	policy.NotAllowed:  v1alpha1.ReasonNotAllowed,
}

// waits tells whether a key of this reason waits for a role or a policy.
func waits(reason v1alpha1.Reason) bool {
	return reason == v1alpha1.ReasonUnknownRole || reason == v1alpha1.ReasonNotAllowed
}

// needsPass tells, in memory, whether a pass would tell the key something else about roles and policies than its status does.
func (r *Reconciler) needsPass(ctx context.Context, key *v1alpha1.ApiKey) bool {
	if !key.DeletionTimestamp.IsZero() || timeline.Expired(key) {
		return false
	}
	verdict, err := r.Rules.Judge(ctx, key, r.Clock.Now())
	if err != nil {
		return false // a change of what is missing brings it here again
	}
	if key.Status.IssuedAt != nil {
		told := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionOutOfPolicy)
		if verdict.Outcome == policy.Allowed {
			return told != nil
		}
		return told == nil || told.Message != outOfPolicyMessage(verdict)
	}
	told := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case verdict.Outcome != policy.Allowed:
		return told == nil || told.Reason != string(refusals[verdict.Outcome]) || told.Message != verdict.Message+"; "+verdict.Cure
	case told == nil:
		return false // it is in the queue
	default:
		return waits(v1alpha1.Reason(told.Reason)) || told.Reason == string(v1alpha1.ReasonIssuing) && key.Status.Hash == ""
	}
}

// waitsForSomebody tells whether a key has been told that it can't be issued unless somebody acts.
func waitsForSomebody(key *v1alpha1.ApiKey) bool {
	reason := readyReason(key)
	return waits(reason) || reason == v1alpha1.ReasonDeliveryRefused || reason == v1alpha1.ReasonSecretConflict
}

// refused tells, in memory, whether a key is waiting to be issued and can't be, or whether its namespace is one that may refuse it.
func (r *Reconciler) refused(ctx context.Context, key *v1alpha1.ApiKey) bool {
	if key.Status.IssuedAt != nil || timeline.Expired(key) {
		return false
	}
	if _, shut := r.gates.round(key.Namespace); shut || refusedDelivery(key) || readyReason(key) == v1alpha1.ReasonSecretConflict {
		return true
	}
	verdict, err := r.Rules.Judge(ctx, key, r.Clock.Now())
	return err == nil && verdict.Outcome != policy.Allowed
}

func outOfPolicyMessage(verdict policy.Verdict) string {
	return "the key keeps working, but would not be issued today: " + verdict.Message
}
