package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ApiKeyUsage reports which tokens a verifier has accepted. Verifiers write it, one object each, and the operator reads it and
// records the times in the status of the ApiKeys. Its name is that of the verifier's pod or, outside of a pod, of its service
// account. In the namespace of the operator it speaks of all keys, in another namespace only of the keys there. It informs, and
// no decision depends on it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=apikeyusages,scope=Namespaced
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ApiKeyUsage struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// report is a random text that differs in each report of a verifier: 1 to 64
	// characters. So the API server takes note of a report even if its uses are
	// the same as before.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Report string `json:"report,omitempty"`

	// uses are uses that are not recorded yet, at most 500: those that have been
	// unrecorded longest, with the namespaces taking turns. Absent means none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Uses []TokenUse `json:"uses,omitempty"`
}

// TokenUse is the last use of a token.
type TokenUse struct {
	// uid is the metadata.uid of the ApiKey.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`

	// digest is the digest of the token: sha256: followed by 64 hexadecimal digits.
	// +required
	// +kubebuilder:validation:MinLength=71
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Digest string `json:"digest,omitempty"`

	// age is the number of seconds from the last use of the token until the API
	// server received this report: the time of uses in metadata.managedFields. So
	// the clock of the verifier does not matter.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	Age *int64 `json:"age,omitempty"`
}

// ApiKeyUsageList is a list of ApiKeyUsages.
//
// +kubebuilder:object:root=true
type ApiKeyUsageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ApiKeyUsage `json:"items"`
}
