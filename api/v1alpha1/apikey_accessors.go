package v1alpha1

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SecretName returns the name of the token Secret: spec.secret.name, or the name of the ApiKey.
func (k *ApiKey) SecretName() string {
	if k.Spec.Secret != nil && k.Spec.Secret.Name != "" {
		return k.Spec.Secret.Name
	}
	return k.Name
}

// SecretKey returns the data key of the token in its Secret: spec.secret.key, or [DefaultSecretKey].
func (k *ApiKey) SecretKey() string {
	if k.Spec.Secret != nil && k.Spec.Secret.Key != "" {
		return k.Spec.Secret.Key
	}
	return DefaultSecretKey
}

// Attributes returns spec.attributes with the values as strings, or nil if there are none.
func (k *ApiKey) Attributes() map[string]string {
	if len(k.Spec.Attributes) == 0 {
		return nil
	}
	values := make(map[string]string, len(k.Spec.Attributes))
	for name, value := range k.Spec.Attributes {
		values[name] = string(value)
	}
	return values
}

// Condition returns the condition of the given type, or nil if the key does not have it.
func (k *ApiKey) Condition(conditionType string) *metav1.Condition {
	return meta.FindStatusCondition(k.Status.Conditions, conditionType)
}

// ReadyReason returns the reason of the condition Ready, or "" if the key has no such condition yet.
func (k *ApiKey) ReadyReason() Reason {
	ready := k.Condition(ConditionReady)
	if ready == nil {
		return ""
	}
	return Reason(ready.Reason)
}

// IsReady reports whether the condition Ready is True: the key is issued and has not been marked as expired.
func (k *ApiKey) IsReady() bool {
	return meta.IsStatusConditionTrue(k.Status.Conditions, ConditionReady)
}

// IsCommitted reports whether the status contains a digest. Verifiers accept the token with that digest, even before it
// is confirmed.
func (k *ApiKey) IsCommitted() bool { return k.Status.Hash != "" }

// IsIssued reports whether the key was ever issued: the token was confirmed to be in its Secret. It stays true after
// the key expires.
func (k *ApiKey) IsIssued() bool { return k.Status.IssuedAt != nil }

// IsExpired reports whether the operator marked the key as expired. The mark is permanent, even if a clock is corrected
// later. A key whose expiry time has only just passed has no mark yet.
func (k *ApiKey) IsExpired() bool { return k.ReadyReason() == ReasonExpired }

// IsSuspended reports whether spec.suspend asks verifiers to refuse the token.
func (k *ApiKey) IsSuspended() bool { return k.Spec.Suspend != nil && *k.Spec.Suspend }

// IsKept reports whether [AnnotationKeep] prevents the operator from deleting the key after it has expired.
func (k *ApiKey) IsKept() bool { return k.Annotations[AnnotationKeep] == "true" }

// RotationRequest returns the value of [AnnotationRotate] if it is a request that was neither handled nor begun, or "". The
// value may be invalid.
func (k *ApiKey) RotationRequest() string {
	value := k.Annotations[AnnotationRotate]
	if rotation := k.Status.Rotation; rotation != nil &&
		(slices.Contains(rotation.HandledRequests, value) || rotation.Pending != nil && rotation.Pending.Request == value) {
		return ""
	}
	return value
}

// RetirementRequest returns the value of [AnnotationRetire] if it is a request that was not handled, or "". The value may be
// invalid.
func (k *ApiKey) RetirementRequest() string {
	value := k.Annotations[AnnotationRetire]
	if rotation := k.Status.Rotation; rotation != nil && slices.Contains(rotation.HandledRetirements, value) {
		return ""
	}
	return value
}

// PendingToken returns the token of a rotation that is in progress, or nil.
func (k *ApiKey) PendingToken() *ApiKeyPendingToken {
	if k.Status.Rotation == nil {
		return nil
	}
	return k.Status.Rotation.Pending
}

// RetiringToken returns the token before the last rotation, or nil if there is none or it was ended.
func (k *ApiKey) RetiringToken() *ApiKeyRetiringToken {
	if k.Status.Rotation == nil {
		return nil
	}
	return k.Status.Rotation.Retiring
}

// LastUsedAt returns the last use on record, or the zero time if no use was seen.
func (k *ApiKey) LastUsedAt() time.Time { return timeOf(k.Status.LastUsedAt) }

// RetiringLastUsedAt returns the last use of the retiring token on record, or the zero time if none was seen or there is no such
// token.
func (k *ApiKey) RetiringLastUsedAt() time.Time {
	if retiring := k.RetiringToken(); retiring != nil {
		return timeOf(retiring.LastUsedAt)
	}
	return time.Time{}
}

func timeOf(at *metav1.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.Time
}
