package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ApiRole is an entry in the cluster's role catalogue; the name of the object is the name of the role. If the catalogue
// is empty, keys may have any roles. Otherwise a key with a role that the catalogue does not contain stays pending
// until the role is created. Treat the permission to write ApiRoles as a privileged one: a role that is added to
// spec.includes takes effect for issued keys at once.
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

	// metadata is the standard object's metadata. metadata.name is the name of the
	// role.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec describes the role, and lists the roles that it includes.
	// +required
	Spec ApiRoleSpec `json:"spec,omitzero"`

	// status is what the operator observed.
	// +optional
	Status ApiRoleStatus `json:"status,omitzero"`
}

// ApiRoleSpec describes a role.
type ApiRoleSpec struct {
	// description tells people what the role permits: 1 to 1024 characters.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Description string `json:"description,omitempty"`

	// includes are roles that every key with this role also has, together with the
	// roles that those include: 1 to 256 names. A name that the catalogue does not
	// contain is included anyway. Cycles are allowed. Absent means none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",messageExpression="'\"%s\" must be a DNS subdomain: lower-case letters, digits, - and ., such as org.permission.customer.read'.format([self])"
	Includes []string `json:"includes,omitempty"`
}

// ApiRoleStatus is the observed state of an ApiRole.
type ApiRoleStatus struct {
	// keys is the number of ApiKeys that have the role, either in spec.roles or
	// because one of their roles includes it. Pending keys are counted; keys that
	// have expired or are being deleted are not. The number may lag by some
	// seconds. The operator does not set it if it runs with --namespaces.
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
