package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ApiKeyPolicy says which ApiKeys are allowed in the namespaces that it selects. If there is no policy, every key is
// allowed. Otherwise a key is issued only if a single policy selects its namespace and allows everything that the key
// requests. Like RBAC rules, policies only add permissions: no policy takes away what another allows. If policies
// change so that none allows an issued key, the key keeps working and has the condition OutOfPolicy.
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

	// spec says which keys are allowed, and in which namespaces.
	// +required
	Spec ApiKeyPolicySpec `json:"spec,omitzero"`
}

// ApiKeyPolicySpec says which keys are allowed, and in which namespaces.
type ApiKeyPolicySpec struct {
	// namespaceSelector selects by label the namespaces that this policy applies
	// to. Absent or empty selects every namespace. To select a single namespace by
	// name, use its label kubernetes.io/metadata.name.
	// +optional
	NamespaceSelector *NamespaceSelector `json:"namespaceSelector,omitempty"`

	// roles are the roles that keys may have: 1 to 256 entries. An entry is a
	// role; a prefix that ends in .* (org.permission.* allows
	// org.permission.customer.read, but not org.permission itself); or * for every
	// role. The roles that a key's roles include must be allowed too.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="self == '*' || !format.dns1123Subdomain().validate(self.endsWith('.*') ? self.substring(0, self.size() - 2) : self).hasValue()",messageExpression="'\"%s\" must be a role, such as org.permission.customer.read; a prefix that ends in .*, such as org.permission.*; or * for every role'.format([self])"
	Roles []string `json:"roles,omitempty"`

	// maxLifetime is the longest lifetime that a key may have. Days, hours,
	// minutes and seconds in this order, such as 90d or 12h30m; more than zero and
	// at most 3650d. It limits expiry.after, and for expiry.at the time from issue
	// to expiry. It refuses expiry.never. Absent means no limit.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be more than zero, such as 15m or 90d"
	MaxLifetime Duration `json:"maxLifetime,omitempty"`

	// allowedCIDRs are 1 to 64 IPv4 or IPv6 networks without host bits. Each of a
	// key's cidrs must lie within a single one of them; a network that only
	// several entries together cover is refused. A key without cidrs is refused.
	// Absent means that keys may have any cidrs, or none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",messageExpression="'\"%s\" must be an IPv4 or IPv6 network, such as 10.20.0.0/16 or 2001:db8::/32; IPv4-mapped IPv6 addresses are not allowed'.format([self])"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",messageExpression="'%s has host bits; the network is %s'.format([self, string(cidr(self).masked())])"
	AllowedCIDRs []string `json:"allowedCIDRs,omitempty"`

	// requireExpiry refuses keys that never expire. It does not limit the lifetime
	// of other keys; maxLifetime does. Absent means false.
	// +optional
	RequireExpiry *bool `json:"requireExpiry,omitempty"`

	// requiredAttributes are the names of attributes that a key must have: 1 to 16
	// names, such as owner. Absent means none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[a-z][a-z0-9-]{0,62}$')",messageExpression="'\"%s\" is not a name of an attribute: must be a lower-case letter, followed by at most 62 lower-case letters, digits and -, such as owner or cost-center'.format([self])"
	RequiredAttributes []string `json:"requiredAttributes,omitempty"`

	// attributes are the values that attributes of a key may have, by the name of
	// the attribute: 1 to 16 names with 1 to 64 values each. A value is compared as
	// a whole. A key without such an attribute is allowed, unless requiredAttributes
	// names it. Attributes that are not listed here may have any value.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[a-z][a-z0-9-]{0,62}$'))",messageExpression="'\"%s\" is not a name of an attribute: must be a lower-case letter, followed by at most 62 lower-case letters, digits and -, such as owner or cost-center'.format([self.filter(name, !name.matches('^[a-z][a-z0-9-]{0,62}$')).map(name, name.size() > 63 ? name.substring(0, 63) + '...' : name)[0]])"
	Attributes map[string]AttributeValues `json:"attributes,omitempty"`
}

// AttributeValues are the values that an attribute may have: 1 to 64.
//
// +listType=set
// +kubebuilder:validation:MinItems=1
// +kubebuilder:validation:MaxItems=64
type AttributeValues []AttributeValue

// NamespaceSelector selects namespaces by their labels. It works like every label selector of Kubernetes: all of
// matchLabels and matchExpressions must match, and an empty selector selects every namespace.
// ---
// It is not a metav1.LabelSelector, because the schema of that type has no limits and accepts invalid selectors.
type NamespaceSelector struct {
	// matchLabels are labels that a namespace must have, with these values: at
	// most 32.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.size() <= 317 && !format.qualifiedName().validate(name).hasValue())",message="every name must be a label name, such as team or example.com/team"
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`

	// matchExpressions are further requirements on the labels of a namespace: at
	// most 32.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	MatchExpressions []NamespaceSelectorRequirement `json:"matchExpressions,omitempty"`
}

// NamespaceSelectorRequirement is a requirement on the labels of a namespace.
//
// +kubebuilder:validation:XValidation:rule="(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",messageExpression="self.operator in ['In', 'NotIn'] ? 'the operator ' + self.operator + ' needs values' : 'the operator ' + self.operator + ' takes no values; remove them'"
type NamespaceSelectorRequirement struct {
	// key is the name of the label.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:XValidation:rule="!format.qualifiedName().validate(self).hasValue()",messageExpression="'\"%s\" must be a label name, such as team or example.com/team'.format([self])"
	Key string `json:"key,omitempty"`

	// operator is In, NotIn, Exists or DoesNotExist.
	// +required
	Operator NamespaceSelectorOperator `json:"operator,omitempty"`

	// values are the values that In and NotIn compare the label with: at most 64.
	// Exists and DoesNotExist have no values.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Values []LabelValue `json:"values,omitempty"`
}

// NamespaceSelectorOperator says how a label is compared with values.
//
// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
type NamespaceSelectorOperator string

// LabelValue is the value of a label: empty, or at most 63 letters, digits, -, _ and . that start and end with a letter
// or digit.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="!format.labelValue().validate(self).hasValue()",messageExpression="'\"%s\" must be a label value: letters, digits, -, _ and . that start and end with a letter or digit'.format([self])"
type LabelValue string

// ApiKeyPolicyList is a list of ApiKeyPolicies.
//
// +kubebuilder:object:root=true
type ApiKeyPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ApiKeyPolicy `json:"items"`
}

// LabelSelector converts s to a [metav1.LabelSelector]. A nil selector selects everything.
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
