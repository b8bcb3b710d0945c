package issuing

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/grant"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
)

// write settles the status by the outcome, patches it if it changed, and then records the transitions in metrics and events.
// Nothing else writes status. The patch carries the resourceVersion that the outcome was decided on, so that at most one of
// two operators succeeds; the other one gets a Conflict. write returns a terminal error for a transition that package
// lifecycle does not allow.
func (r *Reconciler) write(ctx context.Context, s *scope, o outcome) error {
	before := s.key.DeepCopy()
	r.settle(s, o)
	if equality.Semantic.DeepEqual(before.Status, s.key.Status) {
		return nil
	}
	if from, to := facts.State(before), facts.State(s.key); !lifecycle.Leads(from, to) {
		s.key = before
		return reconcile.TerminalError(fmt.Errorf("status not written: transition from %s to %s is not allowed", from, to))
	}
	patch, err := client.MergeFromWithOptions(statusOnly(before), client.MergeFromWithOptimisticLock{}).Data(statusOnly(s.key))
	if err != nil {
		s.key = before
		return fmt.Errorf("write status: %w", err)
	}
	// Decode into a new object, because a field that the API server drops would stay in the old one.
	written := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: before.Namespace, Name: before.Name}}
	if err := r.Client.Status().Patch(ctx, written, client.RawPatch(types.MergePatchType, patch)); err != nil {
		s.key = before
		return fmt.Errorf("write status: %w", err)
	}
	s.key = written
	s.facts.Record = facts.Record(s.key)
	r.tell(s, before, o)
	return nil
}

// statusOnly returns a copy that has only the resourceVersion and the status, so that fewer fields are encoded and compared.
func statusOnly(key *v1alpha1.ApiKey) *v1alpha1.ApiKey {
	return &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{ResourceVersion: key.ResourceVersion}, Status: key.Status}
}

// settle applies an outcome to the status. Only settle and the outcomes themselves set conditions.
func (r *Reconciler) settle(s *scope, o outcome) {
	s.key.Status.ObservedGeneration = s.key.Generation
	o.settle(s)
	if s.asked.Clock == lifecycle.Wrong {
		return // everything else depends on the time
	}
	conditions := &s.key.Status.Conditions
	meta.RemoveStatusCondition(conditions, v1alpha1.ConditionClockSkewed)

	switch {
	case !s.key.IsReady(), s.verdict.Outcome == grant.Allowed:
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionOutOfPolicy)
	case s.verdict.Outcome != grant.Unjudged:
		setCondition(s, v1alpha1.ConditionOutOfPolicy, metav1.ConditionTrue, v1alpha1.ReasonOutOfPolicy, outOfPolicyMessage(s.verdict))
	}

	r.schedule(s)
	settled := s.facts
	if again, err := facts.Of(s.key, r.TTLAfterExpired); err == nil {
		settled = again
	}
	settleRotation(s, settled)
	if at, ok := settled.DeadlineAt(s.now).Time(); ok && s.key.IsReady() && settled.Expiring(s.now) {
		setCondition(s, v1alpha1.ConditionExpiring, metav1.ConditionTrue, v1alpha1.ReasonDeadlineNear,
			fmt.Sprintf("the key expires at %s; before then, create another ApiKey and switch clients to its token", at.Format(time.RFC3339)))
	} else {
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionExpiring)
	}
}

// fixDeadline sets what is fixed when the first token is committed: the name of the Secret, and the expiry time.
func fixDeadline(s *scope) {
	status := &s.key.Status
	status.SecretName = s.key.SecretName()
	status.Expires = "never"
	if at, ok := s.facts.DeadlineAt(s.now).Time(); ok {
		status.ExpiresAt = ptr.To(metav1.NewTime(at))
		status.Expires = at.Format(time.RFC3339)
	}
}

// clearToken removes the digest. It keeps the name of the Secret until no Secret is left.
func clearToken(s *scope, nothingLeft bool) {
	s.key.Status.Hash, s.key.Status.TokenHint = "", ""
	if nothingLeft {
		s.key.Status.SecretName = ""
	}
}

// setReady sets Ready, and Stalled too where somebody must act: kstatus reads Ready=False without Stalled as progress.
func setReady(s *scope, reason v1alpha1.Reason, message string) {
	ready := metav1.ConditionFalse
	if reason.IsReady() {
		ready = metav1.ConditionTrue
	}
	setCondition(s, v1alpha1.ConditionReady, ready, reason, message)

	if reason.IsStalled() {
		setCondition(s, v1alpha1.ConditionStalled, metav1.ConditionTrue, reason, message)
	} else {
		meta.RemoveStatusCondition(&s.key.Status.Conditions, v1alpha1.ConditionStalled)
	}
}

func setCondition(s *scope, conditionType string, status metav1.ConditionStatus, reason v1alpha1.Reason, message string) {
	meta.SetStatusCondition(&s.key.Status.Conditions, metav1.Condition{
		Type:               conditionType,
		Status:             status,
		Reason:             string(reason),
		Message:            message,
		ObservedGeneration: s.key.Generation,
		LastTransitionTime: metav1.NewTime(s.now),
	})
}

// tell counts a transition and emits its event. It is called after the status write succeeded.
func (r *Reconciler) tell(s *scope, before *v1alpha1.ApiKey, o outcome) {
	o.tell(r, s, before.ReadyReason())
	if blocked := s.key.Condition(v1alpha1.ConditionRotationBlocked); blocked != nil {
		if told := before.Condition(v1alpha1.ConditionRotationBlocked); told == nil || told.Reason != blocked.Reason {
			eventType := corev1.EventTypeWarning
			if blocked.Reason == string(v1alpha1.ReasonWaiting) {
				eventType = corev1.EventTypeNormal
			}
			r.Metrics.rotationsBlocked.WithLabelValues(blocked.Reason).Inc()
			r.event(s, eventType, v1alpha1.Reason(blocked.Reason), "Rotate", blocked.Message)
		}
	}
	for _, warning := range []string{v1alpha1.ConditionExpiring, v1alpha1.ConditionClockSkewed, v1alpha1.ConditionOutOfPolicy} {
		if now := s.key.Condition(warning); now != nil && before.Condition(warning) == nil {
			r.event(s, corev1.EventTypeWarning, v1alpha1.Reason(now.Reason), "Warn", now.Message)
		}
	}
}

// maxNote is the length in bytes at which a note is cut. The API server refuses events whose note has 1024 bytes or more
// (NoteLengthLimit).
const maxNote = 1000

func (r *Reconciler) event(s *scope, eventType string, reason v1alpha1.Reason, action, note string) {
	r.Recorder.Eventf(s.key, nil, eventType, string(reason), action, "%s", clip(note))
}

// clip limits the length of a text that users may have influenced.
func clip(text string) string {
	if len(text) > maxNote {
		return strings.ToValidUTF8(text[:maxNote], "") + "..."
	}
	return text
}

var refusals = map[grant.Outcome]v1alpha1.Reason{
	grant.UnknownRole: v1alpha1.ReasonUnknownRole,
	grant.NotAllowed:  v1alpha1.ReasonNotAllowed,
}

func refusalMessage(verdict grant.Verdict) string { return verdict.Message + "; " + verdict.Cure }

func outOfPolicyMessage(verdict grant.Verdict) string {
	return "the key keeps working, but would not be issued today: " + verdict.Message
}

func issuedMessage(s *scope) string {
	return fmt.Sprintf("the token is in Secret %q under the data key %q, and stored nowhere else", s.key.SecretName(), s.key.SecretKey())
}

const suspendedMessage = "the key is suspended: verifiers refuse its token until spec.suspend is false or absent"

// byManager returns the end of a message that names a field manager, or "" if the manager is unknown.
func byManager(manager string) string {
	if manager == "" {
		return ""
	}
	return fmt.Sprintf(" (field manager %q)", manager)
}

func expiredMessage(s *scope) string {
	message := "the key has expired"
	if !s.facts.Committed {
		message = "the key expired before it was issued, so it has no token"
	}
	if keeper := facts.KeptBy(s.key); keeper != "" {
		return fmt.Sprintf("%s; this object is kept because of %s; delete it where it is declared once it is no longer needed", message, keeper)
	}
	return message + "; to get a new token, create another ApiKey"
}

// aheadOrBehind rounds the skew to whole minutes, so that the message of a steady skew stays the same.
func aheadOrBehind(skew time.Duration) string {
	if skew > 0 {
		return skew.Round(time.Minute).String() + " ahead of"
	}
	return (-skew).Round(time.Minute).String() + " behind"
}
