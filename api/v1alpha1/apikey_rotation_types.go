package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ApiKeyRotation says when the token of a key is replaced by a new one.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(self.every) || !has(self.overlap) || int('0' + self.every.find('[0-9]+d').split('d')[0]) * 86400 + int('0' + self.every.find('[0-9]+h').split('h')[0]) * 3600 + int('0' + self.every.find('[0-9]+m').split('m')[0]) * 60 + int('0' + self.every.find('[0-9]+s').split('s')[0]) > int('0' + self.overlap.find('[0-9]+d').split('d')[0]) * 86400 + int('0' + self.overlap.find('[0-9]+h').split('h')[0]) * 3600 + int('0' + self.overlap.find('[0-9]+m').split('m')[0]) * 60 + int('0' + self.overlap.find('[0-9]+s').split('s')[0])",messageExpression="'overlap (' + self.overlap + ') must be less than every (' + self.every + '), because at most two tokens are valid at the same time'",fieldPath=".overlap"
type ApiKeyRotation struct {
	// every is the time between two rotations. The operator replaces the token
	// after this time, or up to a tenth of it earlier. Days, hours, minutes and
	// seconds in this order, such as 30d; more than zero and at most 3650d. A time
	// below the operator's --min-rotation-every, which defaults to 1h, counts as
	// that. Absent means that the token is replaced on request only. It can't be
	// combined with spec.secret.revealFor.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be more than zero, such as 30d"
	Every Duration `json:"every,omitempty"`

	// overlap is how long the old token stays valid after the new one was
	// delivered. Days, hours, minutes and seconds in this order, such as 24h; at
	// most 30d and less than every. 0s means that the old token is refused at once.
	// Absent means 24h, or half of every if that is less.
	// +optional
	// +kubebuilder:validation:XValidation:rule="int('0' + self.find('[0-9]+d').split('d')[0]) * 86400 + int('0' + self.find('[0-9]+h').split('h')[0]) * 3600 + int('0' + self.find('[0-9]+m').split('m')[0]) * 60 + int('0' + self.find('[0-9]+s').split('s')[0]) <= 2592000",message="must be at most 30d"
	Overlap Duration `json:"overlap,omitempty"`
}

// AttributeValue is the value of an attribute: 1 to 256 printable ASCII characters that neither start nor end with a
// space. It is not -, which stands for a missing attribute.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:XValidation:rule="self != '-' && self.matches('^[!-~]([ -~]*[!-~])?$')",messageExpression="self == '-' ? 'must not be -, which stands for a missing attribute; remove the attribute instead' : 'must be printable ASCII characters that neither start nor end with a space, such as team-shop'"
type AttributeValue string

// ApiKeyRotationStatus is the observed state of the rotation of a key.
type ApiKeyRotationStatus struct {
	// rotatedAt is when the operator confirmed that the Secret holds the token of
	// the last rotation.
	// +optional
	RotatedAt *metav1.Time `json:"rotatedAt,omitempty"`

	// count is the number of rotations.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Count int32 `json:"count,omitempty"`

	// nextAt is when the next rotation by schedule is due. Absent means that none
	// is due before the key expires.
	// +optional
	NextAt *metav1.Time `json:"nextAt,omitempty"`

	// handledRequests are the last 16 values of the annotation
	// apikey-operator.io/rotate that were handled, the latest last. None of them is
	// a request again.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=128
	HandledRequests []string `json:"handledRequests,omitempty"`

	// handledRetirements are the last 16 values of the annotation
	// apikey-operator.io/retire that were handled, the latest last. None of them is
	// a request again.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=128
	HandledRetirements []string `json:"handledRetirements,omitempty"`

	// pending is the token of a rotation that is in progress. Verifiers accept it.
	// It becomes the current token once the operator has confirmed that the Secret
	// holds it.
	// +optional
	Pending *ApiKeyPendingToken `json:"pending,omitempty"`

	// retiring is the token before the last rotation, while verifiers still accept
	// it.
	// +optional
	Retiring *ApiKeyRetiringToken `json:"retiring,omitempty"`
}

// ApiKeyPendingToken is the token of a rotation that is in progress.
type ApiKeyPendingToken struct {
	// hash is the digest of the token, as in status.hash.
	// +required
	// +kubebuilder:validation:MinLength=71
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Hash string `json:"hash,omitempty"`

	// tokenHint is the first characters of the token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=21
	TokenHint string `json:"tokenHint,omitempty"`

	// request is the value of the annotation that requested the rotation. Absent
	// means that it was due by schedule.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Request string `json:"request,omitempty"`

	// overlap is how long the current token stays valid after this one is
	// confirmed.
	// +required
	Overlap Duration `json:"overlap,omitempty"`
}

// ApiKeyRetiringToken is the token before the last rotation.
type ApiKeyRetiringToken struct {
	// hash is the digest of the token, as in status.hash.
	// +required
	// +kubebuilder:validation:MinLength=71
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Hash string `json:"hash,omitempty"`

	// tokenHint is the first characters of the token.
	// +optional
	// +kubebuilder:validation:MaxLength=21
	TokenHint string `json:"tokenHint,omitempty"`

	// retiresAt is the time from which the token is refused. If the key expires
	// earlier, that counts.
	// +required
	RetiresAt metav1.Time `json:"retiresAt,omitzero"`

	// lastUsedAt is when a verifier last accepted this token, as far as this is
	// recorded: once a minute while it is used, or less often in a cluster with
	// very many keys in use. Absent means that no use was seen since the rotation.
	// +optional
	LastUsedAt *metav1.Time `json:"lastUsedAt,omitempty"`
}
