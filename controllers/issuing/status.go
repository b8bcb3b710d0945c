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
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/controllers/timeline"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/policy"
)

// finding is what a step found out. The zero finding means nothing new: only the passing of time can change the status then.
type finding struct {
	// reason of Ready, with its message; "" leaves Ready as it is.
	reason  v1alpha1.Reason
	message string
	// hash and hint of a token that is being committed; "" leaves them as they are.
	hash, hint string
	// secretGone says that the Secret need not be withdrawn any more; secretWithdrawn, that it was done just now.
	secretGone, secretWithdrawn bool
	// takenBack says that nothing is left of a token that was committed before the key had to wait, or was not delivered.
	takenBack bool
	// skew is beyond tolerance where it is not zero.
	skew time.Duration
}

// write is the one writer of status: it settles the status by the finding, writes it if that changed anything, and then tells of
// the transitions. The write carries the resourceVersion that it was decided on, so that of two operators at most one wins;
// losing comes back as a Conflict.
func (r *Reconciler) write(ctx context.Context, s *scope, f finding) error {
	deadline, err := timeline.Deadline(s.key, s.now)
	if err != nil {
		return err
	}
	before := s.key.DeepCopy()
	settle(s, deadline, f)
	if equality.Semantic.DeepEqual(before.Status, s.key.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, s.key, patch); err != nil {
		s.key = before
		return fmt.Errorf("write status: %w", err)
	}
	r.tell(s, before, f)
	return nil
}

// settle turns a finding into the status. It is the only place that sets a condition.
func settle(s *scope, deadline expiry.Deadline, f finding) {
	status := &s.key.Status
	status.ObservedGeneration = s.key.Generation

	if f.skew != 0 {
		message := fmt.Sprintf("the operator's clock is %s the API server's: nothing is issued, expired or deleted until they agree; "+
			"check time synchronisation on the operator's node", aheadOrBehind(f.skew))
		setCondition(s, v1alpha1.ConditionClockSkewed, metav1.ConditionTrue, v1alpha1.ReasonClockSkewed, message)
		if !hasCondition(s.key, v1alpha1.ConditionReady) {
			setReady(s, finding{reason: v1alpha1.ReasonIssuing, message: message})
		}
		return
	}
	meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionClockSkewed)

	if f.hash != "" {
		status.Hash, status.TokenHint = f.hash, f.hint
	}
	if waits(f.reason) || f.reason == v1alpha1.ReasonDeliveryRefused {
		status.Hash, status.TokenHint = "", ""
		if f.takenBack {
			status.SecretName = ""
		}
	}
	if f.reason != "" {
		if status.Hash != "" || f.reason == v1alpha1.ReasonExpired { // else the key's life has not begun
			status.SecretName = s.key.SecretName()
			status.Expires = "never"
			if at, ok := deadline.Time(); ok {
				status.ExpiresAt = ptr.To(metav1.NewTime(at))
				status.Expires = at.Format(time.RFC3339)
			}
		}
		setReady(s, f)
	}
	switch {
	case f.reason == v1alpha1.ReasonIssued:
		status.IssuedAt = ptr.To(metav1.NewTime(s.now))
	case f.secretGone, f.reason == v1alpha1.ReasonExpired && status.Hash != "" && status.SecretDeletedAt == nil:
		status.SecretDeletedAt = ptr.To(metav1.NewTime(s.now))
	}

	switch {
	case !isReady(s.key), s.verdict.Outcome == policy.Allowed:
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionOutOfPolicy)
	case s.verdict.Outcome != policy.Unjudged:
		setCondition(s, v1alpha1.ConditionOutOfPolicy, metav1.ConditionTrue, v1alpha1.ReasonOutOfPolicy, outOfPolicyMessage(s.verdict))
	}

	if warnFrom, ok := deadline.WarnFrom(issuedAt(s)); ok && isReady(s.key) && !s.now.Before(warnFrom) {
		at, _ := deadline.Time()
		setCondition(s, v1alpha1.ConditionExpiring, metav1.ConditionTrue, v1alpha1.ReasonDeadlineNear,
			fmt.Sprintf("the key expires at %s; create another ApiKey and move its users over before then", at.Format(time.RFC3339)))
	} else {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionExpiring)
	}
}

// setReady sets Ready, and Stalled with it: kstatus takes Ready=False alone for progress.
func setReady(s *scope, f finding) {
	ready := metav1.ConditionFalse
	if f.reason == v1alpha1.ReasonIssued {
		ready = metav1.ConditionTrue
	}
	if f.reason == v1alpha1.ReasonExpired && readyReason(s.key) != f.reason {
		// A key that was never issued goes from False to False, which would keep the old transition time; but from this one
		// its ttlAfterExpired is counted.
		meta.RemoveStatusCondition(&s.key.Status.Conditions, v1alpha1.ConditionReady)
	}
	setCondition(s, v1alpha1.ConditionReady, ready, f.reason, f.message)

	switch f.reason {
	case v1alpha1.ReasonExpired, v1alpha1.ReasonSecretConflict, v1alpha1.ReasonUnknownRole, v1alpha1.ReasonNotAllowed:
		setCondition(s, v1alpha1.ConditionStalled, metav1.ConditionTrue, f.reason, f.message)
	default:
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

// tell counts a transition and emits its event, after the write that made it so.
func (r *Reconciler) tell(s *scope, before *v1alpha1.ApiKey, f finding) {
	if f.reason != "" && f.reason != readyReason(before) {
		switch f.reason {
		case v1alpha1.ReasonIssued:
			r.Metrics.issued.Inc()
			r.Metrics.issueSeconds.Observe(r.Clock.Since(s.key.CreationTimestamp.Time).Seconds())
			r.event(s, corev1.EventTypeNormal, f.reason, "Issue", f.message)
		case v1alpha1.ReasonSecretConflict:
			r.Metrics.conflicts.Inc()
			r.event(s, corev1.EventTypeWarning, f.reason, "Issue", f.message)
		case v1alpha1.ReasonUnknownRole, v1alpha1.ReasonNotAllowed, v1alpha1.ReasonDeliveryRefused:
			r.Metrics.refused.WithLabelValues(string(f.reason)).Inc()
			r.event(s, corev1.EventTypeWarning, f.reason, "Issue", f.message)
		case v1alpha1.ReasonExpired:
			r.Metrics.expired.Inc()
			if s.key.Status.Hash != "" { // else the deadline had passed before anybody could be late
				r.Metrics.expiryLateness.Observe(r.Clock.Since(s.key.Status.ExpiresAt.Time).Seconds())
			}
			r.event(s, corev1.EventTypeNormal, f.reason, "Expire", f.message)
		default: // Issuing is on the way to one of the others
		}
	}
	if f.secretWithdrawn {
		r.Metrics.withdrawn.Inc()
		r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonSecretWithdrawn, "Withdraw",
			fmt.Sprintf("deleted Secret %q, since spec.secret.revealFor has passed; the key lives on", s.key.SecretName()))
	}
	for _, warning := range []string{v1alpha1.ConditionExpiring, v1alpha1.ConditionClockSkewed, v1alpha1.ConditionOutOfPolicy} {
		if now := meta.FindStatusCondition(s.key.Status.Conditions, warning); now != nil && !hasCondition(before, warning) {
			r.event(s, corev1.EventTypeWarning, v1alpha1.Reason(now.Reason), "Warn", now.Message)
		}
	}
}

// The API server refuses an event whose note has 1024 bytes or more (its NoteLengthLimit).
const maxNote = 1000

func (r *Reconciler) event(s *scope, eventType string, reason v1alpha1.Reason, action, note string) {
	r.Recorder.Eventf(s.key, nil, eventType, string(reason), action, "%s", clip(note))
}

// clip bounds a text that others may have written.
func clip(text string) string {
	if len(text) > maxNote {
		return strings.ToValidUTF8(text[:maxNote], "") + "..."
	}
	return text
}

// issuedAt is when the key was confirmed, or the pass's moment where it has not been.
func issuedAt(s *scope) time.Time {
	if s.key.Status.IssuedAt == nil {
		return s.now
	}
	return s.key.Status.IssuedAt.Time
}

func readyReason(key *v1alpha1.ApiKey) v1alpha1.Reason {
	ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return ""
	}
	return v1alpha1.Reason(ready.Reason)
}

func isReady(key *v1alpha1.ApiKey) bool {
	return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)
}

func hasCondition(key *v1alpha1.ApiKey, conditionType string) bool {
	return meta.FindStatusCondition(key.Status.Conditions, conditionType) != nil
}

// conflictSince tells whether a foreign Secret holds the key up, and since when.
func conflictSince(key *v1alpha1.ApiKey) (time.Time, bool) {
	stalled := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionStalled)
	if stalled == nil || stalled.Reason != string(v1alpha1.ReasonSecretConflict) {
		return time.Time{}, false
	}
	return stalled.LastTransitionTime.Time, true
}

// aheadOrBehind is in whole minutes, so that a steady skew makes one message and not one a pass.
func aheadOrBehind(skew time.Duration) string {
	if skew > 0 {
		return skew.Round(time.Minute).String() + " ahead of"
	}
	return (-skew).Round(time.Minute).String() + " behind"
}
