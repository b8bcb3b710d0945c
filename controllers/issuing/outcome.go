package issuing

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/grant"
)

// outcome is the result of a step. Each implementation knows what it writes to the status, and which metrics and events
// follow the write.
type outcome interface {
	// settle writes the outcome to the status in s.key.
	settle(s *scope)
	// tell counts a transition and emits its event. before is the reason of Ready before the write.
	tell(r *Reconciler, s *scope, before v1alpha1.Reason)
}

// nothingNew changes nothing itself. What follows from the time and the rules is still settled.
type nothingNew struct{}

func (nothingNew) settle(*scope) {}

func (nothingNew) tell(*Reconciler, *scope, v1alpha1.Reason) {}

// clockSkewed is the outcome when the clock is off by more than [lifecycle.Tolerance].
type clockSkewed struct{ skew time.Duration }

func (o clockSkewed) settle(s *scope) {
	message := fmt.Sprintf("the operator's clock is %s the API server's clock: nothing is issued, expired or deleted until they agree; "+
		"check time synchronization on the operator's node", aheadOrBehind(o.skew))
	setCondition(s, v1alpha1.ConditionClockSkewed, metav1.ConditionTrue, v1alpha1.ReasonClockSkewed, message)
	if s.key.Condition(v1alpha1.ConditionReady) == nil {
		setReady(s, v1alpha1.ReasonIssuing, message)
	}
}

func (clockSkewed) tell(*Reconciler, *scope, v1alpha1.Reason) {}

// rulesUnread is the outcome when roles, policies or namespaces have not been loaded. kinds are those that are missing.
type rulesUnread struct{ kinds []string }

func (o rulesUnread) settle(s *scope) {
	setReady(s, v1alpha1.ReasonIssuing, "the operator can't read "+strings.Join(o.kinds, ", ")+" yet, and issues no key until it can: see the operator's log, and "+
		"check that config/crd and config/rbac are applied")
}

func (rulesUnread) tell(*Reconciler, *scope, v1alpha1.Reason) {}

// refused is the outcome when roles or policies do not allow the key. nothingLeft says that no Secret exists of a token that
// was committed earlier.
type refused struct {
	verdict     grant.Verdict
	nothingLeft bool
}

func (o refused) settle(s *scope) {
	clearToken(s, o.nothingLeft)
	setReady(s, refusals[o.verdict.Outcome], refusalMessage(o.verdict))
}

func (o refused) tell(r *Reconciler, s *scope, before v1alpha1.Reason) {
	r.tellRefusal(s, before)
}

// undelivered is the outcome when the API server refuses the Secret. nothingLeft says that no Secret exists of the token
// that was committed earlier.
type undelivered struct {
	message     string
	nothingLeft bool
}

func (o undelivered) settle(s *scope) {
	clearToken(s, o.nothingLeft)
	setReady(s, v1alpha1.ReasonDeliveryRefused, o.message)
}

func (o undelivered) tell(r *Reconciler, s *scope, before v1alpha1.Reason) {
	r.tellRefusal(s, before)
}

func (r *Reconciler) tellRefusal(s *scope, before v1alpha1.Reason) {
	ready := s.key.Condition(v1alpha1.ConditionReady)
	if reason := v1alpha1.Reason(ready.Reason); reason != before {
		r.Metrics.refused.WithLabelValues(string(reason)).Inc()
		r.event(s, corev1.EventTypeWarning, reason, "Issue", ready.Message)
	}
}

// committed is the outcome of minting a token: its digest and its hint.
type committed struct{ hash, hint string }

func (o committed) settle(s *scope) {
	s.key.Status.Hash, s.key.Status.TokenHint = o.hash, o.hint
	fixDeadline(s)
	setReady(s, v1alpha1.ReasonIssuing, fmt.Sprintf("delivering the token to Secret %q", s.key.SecretName()))
}

func (committed) tell(*Reconciler, *scope, v1alpha1.Reason) {} // confirmed or another outcome follows

// conflicted is the outcome when the Secret name is taken by a Secret that does not belong to this key.
type conflicted struct{ message string }

func (o conflicted) settle(s *scope) {
	fixDeadline(s)
	setReady(s, v1alpha1.ReasonSecretConflict, o.message)
}

func (o conflicted) tell(r *Reconciler, s *scope, before v1alpha1.Reason) {
	if before != v1alpha1.ReasonSecretConflict {
		r.Metrics.conflicts.Inc()
		r.event(s, corev1.EventTypeWarning, v1alpha1.ReasonSecretConflict, "Issue", o.message)
	}
}

// confirmed is the outcome when the committed token is in its Secret.
type confirmed struct{}

func (confirmed) settle(s *scope) {
	fixDeadline(s)
	if s.facts.Suspend {
		setReady(s, v1alpha1.ReasonSuspended, suspendedMessage)
	} else {
		setReady(s, v1alpha1.ReasonIssued, issuedMessage(s))
	}
	s.key.Status.IssuedAt = ptr.To(metav1.NewTime(s.now))
	// Requests from before the first token ask for nothing that the user does not have.
	if rotate, retire := s.key.RotationRequest(), s.key.RetirementRequest(); rotate != "" || retire != "" {
		status := rotationStatus(s.key)
		handle(&status.HandledRequests, rotate)
		handle(&status.HandledRetirements, retire)
	}
}

func (confirmed) tell(r *Reconciler, s *scope, before v1alpha1.Reason) {
	if before != v1alpha1.ReasonIssued {
		r.Metrics.issued.Inc()
		r.Metrics.issueSeconds.Observe(r.Clock.Since(s.key.CreationTimestamp.Time).Seconds())
		r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonIssued, "Issue", issuedMessage(s))
	}
}

// suspended is the outcome when an issued key is suspended. by is the field manager that set spec.suspend, or "" if it is
// unknown.
type suspended struct{ by string }

func (suspended) settle(s *scope) { setReady(s, v1alpha1.ReasonSuspended, suspendedMessage) }

func (o suspended) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	r.Metrics.suspended.Inc()
	r.event(s, corev1.EventTypeWarning, v1alpha1.ReasonSuspended, "Suspend", suspendedMessage+byManager(o.by))
}

// resumed is the outcome when a suspended key is resumed. by is the field manager of spec.suspend, or "" if it is unknown.
type resumed struct{ by string }

func (resumed) settle(s *scope) { setReady(s, v1alpha1.ReasonIssued, issuedMessage(s)) }

func (o resumed) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	r.Metrics.resumed.Inc()
	r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonResumed, "Resume",
		"verifiers accept the token again: spec.suspend is false or absent"+byManager(o.by))
}

// withdrawn is the outcome when the Secret of a valid key is gone. byUs says that this pass deleted it.
type withdrawn struct{ byUs bool }

func (withdrawn) settle(s *scope) { s.key.Status.SecretDeletedAt = ptr.To(metav1.NewTime(s.now)) }

func (o withdrawn) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	if o.byUs {
		r.Metrics.withdrawn.Inc()
		r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonSecretWithdrawn, "Withdraw",
			fmt.Sprintf("deleted Secret %q because spec.secret.revealFor has passed; the key stays valid", s.key.SecretName()))
	}
}

// expired is the outcome when the expiry time has passed and the key's Secret is gone.
type expired struct{}

func (expired) settle(s *scope) {
	fixDeadline(s)
	// ttlAfterExpired counts from the transition to Expired. For a key that was never issued, Ready stays False, which would keep
	// the old transition time.
	meta.RemoveStatusCondition(&s.key.Status.Conditions, v1alpha1.ConditionReady)
	setReady(s, v1alpha1.ReasonExpired, expiredMessage(s))
	if status := s.key.Status.Rotation; status != nil {
		status.Pending, status.Retiring, status.NextAt = nil, nil, nil
	}
	if s.facts.Committed && s.facts.SecretLeft() {
		s.key.Status.SecretDeletedAt = ptr.To(metav1.NewTime(s.now))
	}
}

func (expired) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	r.Metrics.expired.Inc()
	if s.facts.Committed { // without a token, the delay has no meaning
		r.Metrics.expiryLateness.Observe(r.Clock.Since(s.key.Status.ExpiresAt.Time).Seconds())
	}
	r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonExpired, "Expire", s.key.Condition(v1alpha1.ConditionReady).Message)
}
