package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ApiRole is an entry of the cluster's catalogue of roles: its name is the role. Without any entry a key may name any
// role; once there is one, a key that names a role outside the catalogue waits until the role appears. Whoever may write
// ApiRoles decides what keys may do: an included role is carried by keys that are already out.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=apiroles,scope=Cluster,categories=apikey-operator
// +kubebuilder:printcolumn:name="Description",type=string,JSONPath=`.spec.description`
// +kubebuilder:printcolumn:name="Keys",type=integer,JSONPath=`.status.keys`
// +kubebuilder:printcolumn:name="Includes",type=string,JSONPath=`.spec.includes`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,priority=1
type ApiRole struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata; its name is the role.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the role allows, and which roles it also carries.
	// +required
	Spec ApiRoleSpec `json:"spec,omitzero"`

	// status is what the operator has counted.
	// +optional
	Status ApiRoleStatus `json:"status,omitzero"`
}

// ApiRoleSpec says what a role is.
type ApiRoleSpec struct {
	// description says, for people, what the role allows: 1 to 1024
	// characters.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Description string `json:"description,omitempty"`

	// includes are roles that a key with this role also carries, and the roles
	// that those include: 1 to 256 names. A name that the catalogue lacks is
	// carried all the same; a cycle changes nothing. Absent means none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",messageExpression="'\"%s\" is no role: it must be a DNS subdomain: lower-case letters, digits, - and ., such as org.permission.customer.read'.format([self])"
	Includes []string `json:"includes,omitempty"`
}

// ApiRoleStatus is what the operator has counted.
type ApiRoleStatus struct {
	// keys is how many ApiKeys carry the role, by their spec or by what their
	// roles include; those that have expired or are being deleted left out,
	// those that wait to be issued not. It may lag by some seconds.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Keys *int32 `json:"keys,omitempty"`
}

// ApiRoleList is a list of ApiRoles.
//
// +kubebuilder:object:root=true
type ApiRoleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ApiRole `json:"items"`
}
