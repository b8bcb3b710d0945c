package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SecretName is the name of the Secret that this key's token is delivered in.
func (k *ApiKey) SecretName() string {
	if k.Spec.Secret != nil && k.Spec.Secret.Name != "" {
		return k.Spec.Secret.Name
	}
	return k.Name
}

// SecretKey is the data key of this key's token in its Secret.
func (k *ApiKey) SecretKey() string {
	if k.Spec.Secret != nil && k.Spec.Secret.Key != "" {
		return k.Spec.Secret.Key
	}
	return DefaultSecretKey
}

// Condition is the condition of a type; nil if the key has none.
func (k *ApiKey) Condition(conditionType string) *metav1.Condition {
	return meta.FindStatusCondition(k.Status.Conditions, conditionType)
}

// ReadyReason is the reason of the condition Ready; "" while the operator has told nothing yet.
func (k *ApiKey) ReadyReason() Reason {
	ready := k.Condition(ConditionReady)
	if ready == nil {
		return ""
	}
	return Reason(ready.Reason)
}

// IsReady tells whether the condition Ready is True: the token has been issued, and may be used.
func (k *ApiKey) IsReady() bool {
	return meta.IsStatusConditionTrue(k.Status.Conditions, ConditionReady)
}

// IsCommitted tells whether the status holds the digest of a token. A verifier accepts that token, whether it has been confirmed or not.
func (k *ApiKey) IsCommitted() bool { return k.Status.Hash != "" }

// IsIssued tells whether the token was confirmed to be in its Secret. That does not change any more: an expired key was issued, too.
func (k *ApiKey) IsIssued() bool { return k.Status.IssuedAt != nil }

// IsExpired tells whether the key has been marked as expired. The mark is for ever, even if a clock is corrected. A key whose deadline has
// just passed has no mark yet.
func (k *ApiKey) IsExpired() bool { return k.ReadyReason() == ReasonExpired }

// IsSuspended tells whether spec.suspend asks verifiers to refuse the key's token.
func (k *ApiKey) IsSuspended() bool { return k.Spec.Suspend != nil && *k.Spec.Suspend }

// IsKept tells whether the annotation asks for the key to be kept for ever once it has expired.
func (k *ApiKey) IsKept() bool { return k.Annotations[AnnotationKeep] == "true" }
