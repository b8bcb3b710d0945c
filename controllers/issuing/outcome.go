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

// outcome is what a step came to. Each says for itself what it writes into the status, and what is told once that is written.
type outcome interface {
	// settle writes the outcome into the status of the key.
	settle(s *scope)
	// tell counts a transition and emits its event. before is what the key's Ready said before the write.
	tell(r *Reconciler, s *scope, before v1alpha1.Reason)
}

// nothingNew leaves it to the passing of time, and to the rules, to change the status.
type nothingNew struct{}

func (nothingNew) settle(*scope) {}

func (nothingNew) tell(*Reconciler, *scope, v1alpha1.Reason) {}

// clockSkewed says that the clock is off by more than is tolerated.
type clockSkewed struct{ skew time.Duration }

func (o clockSkewed) settle(s *scope) {
	message := fmt.Sprintf("the operator's clock is %s the API server's: nothing is issued, expired or deleted until they agree; "+
		"check time synchronisation on the operator's node", aheadOrBehind(o.skew))
	setCondition(s, v1alpha1.ConditionClockSkewed, metav1.ConditionTrue, v1alpha1.ReasonClockSkewed, message)
	if s.key.Condition(v1alpha1.ConditionReady) == nil {
		setReady(s, v1alpha1.ReasonIssuing, message)
	}
}

func (clockSkewed) tell(*Reconciler, *scope, v1alpha1.Reason) {}

// rulesUnread says which kinds must be read before the key can be judged.
type rulesUnread struct{ kinds []string }

func (o rulesUnread) settle(s *scope) {
	setReady(s, v1alpha1.ReasonIssuing, "the operator has not been able to read the cluster's "+strings.Join(o.kinds, ", ")+
		", and issues nothing before: its log says why; have config/crd and config/rbac been applied?")
}

func (rulesUnread) tell(*Reconciler, *scope, v1alpha1.Reason) {}

// refused says that roles or policies do not allow the key. nothingLeft says that no Secret is left of a token that was committed before.
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

// undelivered says that the API server refuses the Secret. nothingLeft says that none is left of the token that was committed before.
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

// committed says that a token was minted: its digest and its hint.
type committed struct{ hash, hint string }

func (o committed) settle(s *scope) {
	s.key.Status.Hash, s.key.Status.TokenHint = o.hash, o.hint
	fixDeadline(s)
	setReady(s, v1alpha1.ReasonIssuing, fmt.Sprintf("delivering the token to Secret %q", s.key.SecretName()))
}

func (committed) tell(*Reconciler, *scope, v1alpha1.Reason) {} // on the way to another

// conflicted says that a Secret which is not this key's is in the way.
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

// confirmed says that the committed token is in its Secret.
type confirmed struct{}

func (confirmed) settle(s *scope) {
	fixDeadline(s)
	if s.key.IsSuspended() {
		setReady(s, v1alpha1.ReasonSuspended, suspendedMessage)
	} else {
		setReady(s, v1alpha1.ReasonIssued, issuedMessage(s))
	}
	s.key.Status.IssuedAt = ptr.To(metav1.NewTime(s.now))
}

func (confirmed) tell(r *Reconciler, s *scope, before v1alpha1.Reason) {
	if before != v1alpha1.ReasonIssued {
		r.Metrics.issued.Inc()
		r.Metrics.issueSeconds.Observe(r.Clock.Since(s.key.CreationTimestamp.Time).Seconds())
		r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonIssued, "Issue", issuedMessage(s))
	}
}

// suspended says that verifiers refuse the token of an issued key. by is the field manager that set spec.suspend; "" if nobody knows.
type suspended struct{ by string }

func (suspended) settle(s *scope) { setReady(s, v1alpha1.ReasonSuspended, suspendedMessage) }

func (o suspended) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	r.Metrics.suspended.Inc()
	r.event(s, corev1.EventTypeWarning, v1alpha1.ReasonSuspended, "Suspend", suspendedMessage+byManager(o.by))
}

// resumed says that verifiers accept the token of a suspended key again. by is the field manager of spec.suspend; "" if nobody knows.
type resumed struct{ by string }

func (resumed) settle(s *scope) { setReady(s, v1alpha1.ReasonIssued, issuedMessage(s)) }

func (o resumed) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	r.Metrics.resumed.Inc()
	r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonResumed, "Resume",
		"verifiers accept the token again: spec.suspend is false or absent"+byManager(o.by))
}

// withdrawn says that the Secret of a key that lives on is gone; byUs, that it was deleted just now.
type withdrawn struct{ byUs bool }

func (withdrawn) settle(s *scope) { s.key.Status.SecretDeletedAt = ptr.To(metav1.NewTime(s.now)) }

func (o withdrawn) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	if o.byUs {
		r.Metrics.withdrawn.Inc()
		r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonSecretWithdrawn, "Withdraw",
			fmt.Sprintf("deleted Secret %q, since spec.secret.revealFor has passed; the key lives on", s.key.SecretName()))
	}
}

// expired says that the deadline has passed, and that nothing is left of the Secret.
type expired struct{}

func (expired) settle(s *scope) {
	fixDeadline(s)
	// A key that was never issued goes from False to False, which would keep the old transition time; but from this one
	// its ttlAfterExpired is counted.
	meta.RemoveStatusCondition(&s.key.Status.Conditions, v1alpha1.ConditionReady)
	setReady(s, v1alpha1.ReasonExpired, expiredMessage(s))
	if s.facts.Committed && !s.facts.SecretDeleted {
		s.key.Status.SecretDeletedAt = ptr.To(metav1.NewTime(s.now))
	}
}

func (expired) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	r.Metrics.expired.Inc()
	if s.facts.Committed { // else the deadline had passed before anybody could be late
		r.Metrics.expiryLateness.Observe(r.Clock.Since(s.key.Status.ExpiresAt.Time).Seconds())
	}
	r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonExpired, "Expire", s.key.Condition(v1alpha1.ConditionReady).Message)
}
