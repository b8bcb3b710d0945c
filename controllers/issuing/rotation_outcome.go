package issuing

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/grant"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
	"github.com/apikey-operator/apikey-operator/internal/rotation"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// rotationStatus returns status.rotation, and creates it if it is absent.
func rotationStatus(key *v1alpha1.ApiKey) *v1alpha1.ApiKeyRotationStatus {
	if key.Status.Rotation == nil {
		key.Status.Rotation = &v1alpha1.ApiKeyRotationStatus{}
	}
	return key.Status.Rotation
}

// handle records that a request was handled, if it can be one: a longer value is never valid.
func handle(handled *[]string, value string) {
	if len(value) <= rotation.MaxValue {
		*handled = rotation.Handled(*handled, value)
	}
}

// rotationCommitted is the outcome of minting a token for a rotation: its digest and its hint, and what the rotation must do.
type rotationCommitted struct {
	hash, hint string
	order      order
}

func (o rotationCommitted) settle(s *scope) {
	rotationStatus(s.key).Pending = &v1alpha1.ApiKeyPendingToken{
		Hash: o.hash, TokenHint: o.hint, Request: o.order.request, Overlap: v1alpha1.Duration(expiry.FormatDuration(o.order.overlap)),
	}
}

func (rotationCommitted) tell(*Reconciler, *scope, v1alpha1.Reason) {} // rotated or another outcome follows

// rotated is the outcome when the pending token is in the Secret. at is when that was found out. From then on, the token before
// stays valid for the overlap. request is the request that the rotation served, or "" if it was due by schedule at due.
type rotated struct {
	at      time.Time
	overlap time.Duration
	request string
	due     *metav1.Time
}

func (o rotated) settle(s *scope) {
	status, pending := rotationStatus(s.key), s.key.PendingToken()
	status.Retiring = nil
	if o.overlap > 0 {
		// Rounded up, so that the overlap is never shorter than it should be.
		retiresAt := o.at.Add(o.overlap + time.Second - 1).Truncate(time.Second)
		status.Retiring = &v1alpha1.ApiKeyRetiringToken{
			Hash: s.key.Status.Hash, TokenHint: s.key.Status.TokenHint, RetiresAt: metav1.NewTime(retiresAt),
		}
	}
	s.key.Status.Hash, s.key.Status.TokenHint = pending.Hash, pending.TokenHint
	s.key.Status.SecretDeletedAt = nil
	status.Pending, status.NextAt = nil, nil
	status.RotatedAt = ptr.To(metav1.NewTime(o.at.Truncate(time.Second)))
	status.Count++
	handle(&status.HandledRequests, o.request)
	meta.RemoveStatusCondition(&s.key.Status.Conditions, v1alpha1.ConditionRotationBlocked)
}

func (o rotated) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	trigger := triggerRequest
	if o.request == "" {
		trigger = triggerSchedule
		if o.due != nil {
			r.Metrics.rotationLateness.Observe(max(0, o.at.Sub(o.due.Time).Seconds()))
		}
	}
	r.Metrics.rotated.WithLabelValues(trigger).Inc()
	old := "the token before it is refused from now on"
	if retiring := s.key.RetiringToken(); retiring != nil {
		old = fmt.Sprintf("the token before it (%s…) is accepted until %s", retiring.TokenHint, retiring.RetiresAt.UTC().Format(time.RFC3339))
	}
	r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonRotated, "Rotate", fmt.Sprintf("a new token (%s…) is in Secret %q; %s",
		s.key.Status.TokenHint, s.key.SecretName(), old))
}

// rotationBlocked is the outcome when a rotation is due and can't be done.
type rotationBlocked struct {
	reason  v1alpha1.Reason
	message string
}

func (o rotationBlocked) settle(s *scope) {
	setRotationBlocked(s, o.reason, o.message)
}

// setRotationBlocked sets the condition RotationBlocked. Its transition time is when the reason began, because the delays between
// attempts grow with the age of the reason.
func setRotationBlocked(s *scope, reason v1alpha1.Reason, message string) {
	if told := s.key.Condition(v1alpha1.ConditionRotationBlocked); told != nil && told.Reason != string(reason) {
		meta.RemoveStatusCondition(&s.key.Status.Conditions, v1alpha1.ConditionRotationBlocked)
	}
	setCondition(s, v1alpha1.ConditionRotationBlocked, metav1.ConditionTrue, reason, message)
}

func (rotationBlocked) tell(*Reconciler, *scope, v1alpha1.Reason) {} // every new reason of the condition is told

// rotationRefused returns the outcome when roles or policies refuse a rotation.
func rotationRefused(verdict grant.Verdict) rotationBlocked {
	return rotationBlocked{refusals[verdict.Outcome], "the token is not rotated, because the key would not be issued today: " +
		refusalMessage(verdict)}
}

// retired is the outcome when the retiring token is no longer accepted. hint is the hint of that token, or "" if there was none.
// request is the request to end it, or "" if its overlap has passed.
type retired struct{ hint, request string }

func (o retired) settle(s *scope) {
	status := rotationStatus(s.key)
	status.Retiring = nil
	handle(&status.HandledRetirements, o.request)
}

func (o retired) tell(r *Reconciler, s *scope, _ v1alpha1.Reason) {
	if o.hint == "" {
		return // there was no retiring token to end
	}
	why := "its overlap has passed"
	if o.request != "" {
		why = fmt.Sprintf("that was requested (%q)", o.request)
	}
	r.event(s, corev1.EventTypeNormal, v1alpha1.ReasonTokenRetired, "Retire",
		fmt.Sprintf("the token before the last rotation (%s…) is no longer accepted: %s", o.hint, why))
}

// schedule sets when the next rotation by schedule is due, if the key has a schedule and the time is not set. A rotation that
// would come after the key expires is not scheduled.
func (r *Reconciler) schedule(s *scope) {
	every, err := facts.Every(s.key, r.MinRotationEvery)
	if err != nil || every == 0 || !facts.State(s.key).Out() || s.key.Status.Rotation != nil && s.key.Status.Rotation.NextAt != nil {
		return
	}
	last := s.key.Status.IssuedAt.Time
	if status := s.key.Status.Rotation; status != nil && status.RotatedAt != nil {
		last = status.RotatedAt.Time
	}
	digest, err := token.ParseDigest(s.key.Status.Hash)
	if err != nil {
		return
	}
	next := metav1.NewTime(rotation.Next(last, every, [8]byte(digest[:8])))
	if expires := s.key.Status.ExpiresAt; expires != nil && !next.Before(expires) {
		return
	}
	rotationStatus(s.key).NextAt = &next
}

// settleRotation sets or removes the condition RotationBlocked where the outcome did not.
func settleRotation(s *scope, settled lifecycle.Facts) {
	invalid := facts.InvalidRequest(s.key)
	begins, requested := settled.RequestedRotationAt()
	switch {
	case settled.State().Out() && settled.RotationDue(s.now):
		// The rotation itself says what blocks it.
	case settled.State().Out() && invalid != nil:
		setRotationBlocked(s, v1alpha1.ReasonInvalidRequest,
			fmt.Sprintf("the key is not rotated: %s; set a valid value, or remove the annotation", clip(invalid.Error())))
	case settled.State().Out() && requested:
		why := "two rotations on request are at least a minute apart"
		if settled.Rotation.Retiring && !settled.Rotation.AtOnce && !settled.RetiresAt.Before(begins) {
			why = fmt.Sprintf("until then the token before the last rotation is accepted; to end it now, set the annotation %s, or request "+
				"the rotation with ;overlap=0s", v1alpha1.AnnotationRetire)
		}
		setRotationBlocked(s, v1alpha1.ReasonWaiting, fmt.Sprintf("the requested rotation begins at %s: %s", begins.UTC().Format(time.RFC3339), why))
	default:
		meta.RemoveStatusCondition(&s.key.Status.Conditions, v1alpha1.ConditionRotationBlocked)
	}
}
