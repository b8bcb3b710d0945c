package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ApiKeyPolicy says what ApiKeys may ask for in some namespaces. Without any policy every key is allowed; once there is
// one, a key is issued only if a single policy selects its namespace and allows all of it. Policies add up, as RBAC's
// roles do: none can take away what another allows. A key that is already out keeps working when its policy is
// tightened, and shows it in the condition OutOfPolicy.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=apikeypolicies,scope=Cluster,shortName=akp,categories=apikey-operator
// +kubebuilder:printcolumn:name="Max Lifetime",type=string,JSONPath=`.spec.maxLifetime`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`
// +kubebuilder:printcolumn:name="Allowed CIDRs",type=string,JSONPath=`.spec.allowedCIDRs`
// +kubebuilder:printcolumn:name="Require Expiry",type=boolean,JSONPath=`.spec.requireExpiry`,priority=1
// +kubebuilder:printcolumn:name="Namespaces",type=string,JSONPath=`.spec.namespaceSelector`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ApiKeyPolicy struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says which keys are allowed, and where.
	// +required
	Spec ApiKeyPolicySpec `json:"spec,omitzero"`
}

// ApiKeyPolicySpec says which keys are allowed, and where.
type ApiKeyPolicySpec struct {
	// namespaceSelector selects the namespaces whose keys this policy speaks
	// for, by their labels. Absent or empty selects every namespace, as in an
	// admission policy. A single namespace is selected by its label
	// kubernetes.io/metadata.name.
	// +optional
	NamespaceSelector *NamespaceSelector `json:"namespaceSelector,omitempty"`

	// roles are what keys may carry: 1 to 256 entries, each a role, a prefix
	// with a final .* (org.permission.* allows org.permission.customer.read,
	// but not org.permission itself), or * for every role. All roles of a key
	// are judged, those that its roles include too.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="self == '*' || !format.dns1123Subdomain().validate(self.endsWith('.*') ? self.substring(0, self.size() - 2) : self).hasValue()",messageExpression="'\"%s\" must be a role such as org.permission.customer.read, a prefix with a final .* such as org.permission.*, or * for every role'.format([self])"
	Roles []string `json:"roles,omitempty"`

	// maxLifetime is the longest life that a key may ask for: days, hours,
	// minutes and seconds in this order, such as 90d or 12h30m; more than
	// zero, at most 3650d. It is held against the length of expiry.after, and
	// against what is left until expiry.at when the key is issued; a key that
	// never expires exceeds any. Absent means any life, never included.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be more than zero, such as 15m or 90d"
	MaxLifetime Duration `json:"maxLifetime,omitempty"`

	// allowedCIDRs are networks, 1 to 64, IPv4 or IPv6, without host bits.
	// Each of a key's CIDRs must lie within one of them; one that only two of
	// them together cover is refused. A key without CIDRs is refused. Absent
	// means any networks, or none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",messageExpression="'\"%s\" must be an IPv4 or IPv6 network such as 10.20.0.0/16 or 2001:db8::/32; an IPv4 network is written as IPv4, not mapped into IPv6'.format([self])"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",messageExpression="'%s has host bits; the network is %s'.format([self, string(cidr(self).masked())])"
	AllowedCIDRs []string `json:"allowedCIDRs,omitempty"`

	// requireExpiry refuses keys that never expire; how long others live is up
	// to maxLifetime. Absent means false.
	// +optional
	RequireExpiry *bool `json:"requireExpiry,omitempty"`
}

// NamespaceSelector selects namespaces by their labels. It reads like every label selector of Kubernetes: all of
// matchLabels and matchExpressions must hold, and an empty one selects every namespace.
// ---
// It is not a metav1.LabelSelector, whose schema has no limits and would accept what can't be understood.
type NamespaceSelector struct {
	// matchLabels are labels that a namespace must have, with these values: at
	// most 32.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.size() <= 317 && !format.qualifiedName().validate(name).hasValue())",message="must have label names such as team or example.com/team"
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`

	// matchExpressions are further demands on a namespace's labels: at most 32.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	MatchExpressions []NamespaceSelectorRequirement `json:"matchExpressions,omitempty"`
}

// NamespaceSelectorRequirement is one demand on a namespace's labels.
//
// +kubebuilder:validation:XValidation:rule="(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",messageExpression="self.operator in ['In', 'NotIn'] ? 'the operator ' + self.operator + ' needs values' : 'the operator ' + self.operator + ' has no values; leave them out'"
type NamespaceSelectorRequirement struct {
	// key is the label's name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:XValidation:rule="!format.qualifiedName().validate(self).hasValue()",messageExpression="'\"%s\" must be a label name such as team or example.com/team'.format([self])"
	Key string `json:"key,omitempty"`

	// operator is In, NotIn, Exists or DoesNotExist.
	// +required
	Operator NamespaceSelectorOperator `json:"operator,omitempty"`

	// values are what In and NotIn compare the label with: at most 64. Exists
	// and DoesNotExist have none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Values []LabelValue `json:"values,omitempty"`
}

// NamespaceSelectorOperator is how a label is compared with values.
//
// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
type NamespaceSelectorOperator string

// LabelValue is the value of a label: at most 63 letters, digits, -, _ and ., or empty.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="!format.labelValue().validate(self).hasValue()",messageExpression="'\"%s\" must be a label value: letters, digits, -, _ and ., the first and last a letter or digit'.format([self])"
type LabelValue string

// ApiKeyPolicyList is a list of ApiKeyPolicies.
//
// +kubebuilder:object:root=true
type ApiKeyPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ApiKeyPolicy `json:"items"`
}

// LabelSelector is the selector in the form that Kubernetes' own functions read. Nil selects everything.
func (s *NamespaceSelector) LabelSelector() *metav1.LabelSelector {
	selector := &metav1.LabelSelector{}
	if s == nil {
		return selector
	}
	for name, value := range s.MatchLabels {
		metav1.AddLabelToSelector(selector, name, string(value))
	}
	for _, r := range s.MatchExpressions {
		values := make([]string, len(r.Values))
		for i, value := range r.Values {
			values[i] = string(value)
		}
		selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: r.Key, Operator: metav1.LabelSelectorOperator(r.Operator), Values: values,
		})
	}
	return selector
}
