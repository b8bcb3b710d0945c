// Package build makes valid objects for tests. Options change the fields that a test is about.
package build

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// Option changes an ApiKey.
type Option func(*v1alpha1.ApiKey)

// ApiKey returns a key with one role that expires 90 days after it is issued.
func ApiKey(namespace, name string, options ...Option) *v1alpha1.ApiKey {
	key := &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.ApiKeySpec{
			Roles:  []string{"org.permission.customer.read"},
			Expiry: v1alpha1.ApiKeyExpiry{After: "90d"},
		},
	}
	for _, option := range options {
		option(key)
	}
	return key
}

// After sets the key's lifetime.
func After(life v1alpha1.Duration) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Expiry = v1alpha1.ApiKeyExpiry{After: life} }
}

// At sets the key's expiry time, in RFC 3339.
func At(moment string) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Expiry = v1alpha1.ApiKeyExpiry{At: moment} }
}

// Never makes a key that never expires.
func Never() Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Expiry = v1alpha1.ApiKeyExpiry{Never: ptr.To(true)} }
}

// TTL sets how long an expired key is kept before the operator deletes it.
func TTL(ttl v1alpha1.Duration) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.TTLAfterExpired = ttl }
}

// Suspended creates the key suspended.
func Suspended() Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Suspend = ptr.To(true) }
}

// CIDRs restricts the key to networks.
func CIDRs(cidrs ...string) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.CIDRs = cidrs }
}

// Roles replaces the key's roles.
func Roles(roles ...string) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Roles = roles }
}

// Secret sets the token Secret's name, key and other properties.
func Secret(secret v1alpha1.ApiKeySecret) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Secret = &secret }
}

// Rotation sets when the key's token is rotated.
func Rotation(rotation v1alpha1.ApiKeyRotation) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Rotation = &rotation }
}

// Attribute adds an attribute.
func Attribute(name string, value v1alpha1.AttributeValue) Option {
	return func(key *v1alpha1.ApiKey) {
		if key.Spec.Attributes == nil {
			key.Spec.Attributes = map[string]v1alpha1.AttributeValue{}
		}
		key.Spec.Attributes[name] = value
	}
}

// Label adds a label.
func Label(name, value string) Option {
	return func(key *v1alpha1.ApiKey) { metav1.SetMetaDataLabel(&key.ObjectMeta, name, value) }
}

// Annotation adds an annotation.
func Annotation(name, value string) Option {
	return func(key *v1alpha1.ApiKey) { metav1.SetMetaDataAnnotation(&key.ObjectMeta, name, value) }
}

// ApiRole returns a role of the catalogue that includes the given roles.
func ApiRole(name string, includes ...string) *v1alpha1.ApiRole {
	return &v1alpha1.ApiRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.ApiRoleSpec{Description: "What " + name + " allows.", Includes: includes},
	}
}

// PolicyOption changes an ApiKeyPolicy.
type PolicyOption func(*v1alpha1.ApiKeyPolicySpec)

// Policy returns a policy that allows the given roles in every namespace and requires nothing else.
func Policy(name string, roles []string, options ...PolicyOption) *v1alpha1.ApiKeyPolicy {
	policy := &v1alpha1.ApiKeyPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ApiKeyPolicySpec{Roles: roles}}
	for _, option := range options {
		option(&policy.Spec)
	}
	return policy
}

// MaxLifetime sets the longest lifetime that a key may have.
func MaxLifetime(most v1alpha1.Duration) PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) { spec.MaxLifetime = most }
}

// AllowedCIDRs sets the networks that a key's CIDRs must lie in.
func AllowedCIDRs(cidrs ...string) PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) { spec.AllowedCIDRs = cidrs }
}

// RequireExpiry makes the policy refuse keys that never expire.
func RequireExpiry() PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) { spec.RequireExpiry = ptr.To(true) }
}

// RequiredAttributes sets the attributes that a key must have.
func RequiredAttributes(names ...string) PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) { spec.RequiredAttributes = names }
}

// AllowedAttribute sets the values that an attribute of a key may have.
func AllowedAttribute(name string, values ...v1alpha1.AttributeValue) PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) {
		if spec.Attributes == nil {
			spec.Attributes = map[string]v1alpha1.AttributeValues{}
		}
		spec.Attributes[name] = values
	}
}

// Namespaces limits the policy to namespaces with a label.
func Namespaces(label string, value v1alpha1.LabelValue) PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) {
		spec.NamespaceSelector = &v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{label: value}}
	}
}

// TokenSecret returns a token Secret as the operator creates it for a key, with text in place of a token.
func TokenSecret(key *v1alpha1.ApiKey, text string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace,
			Name:      key.SecretName(),
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "ApiKey", Name: key.Name, UID: key.UID, Controller: ptr.To(true),
			}},
		},
		Type: v1alpha1.SecretType,
		Data: map[string][]byte{key.SecretKey(): []byte(text)},
	}
}

// Worst makes the key as large as the schema allows and adds the annotation that kubectl apply writes. Keys with different numbers share
// no role name, no network and no attribute.
func Worst(number int) Option {
	return func(key *v1alpha1.ApiKey) {
		const roles, length, networks = 256, 64, 64 // 16 KiB of names
		const attributes, size = 16, 128            // 2 KiB of names and values
		key.Spec.DisplayName = strings.Repeat("k", 256)
		key.Spec.Roles = make([]string, roles)
		for i := range key.Spec.Roles {
			key.Spec.Roles[i] = fmt.Sprintf("%0*x", length, number*roles+i)
		}
		key.Spec.CIDRs = make([]string, networks)
		for i := range key.Spec.CIDRs {
			key.Spec.CIDRs[i] = fmt.Sprintf("2001:db8:%x:%x::/64", number, i)
		}
		key.Spec.Attributes = map[string]v1alpha1.AttributeValue{}
		for i := range attributes {
			name := fmt.Sprintf("attribute-%02d", i)
			key.Spec.Attributes[name] = v1alpha1.AttributeValue(fmt.Sprintf("%0*x", size-len(name), number*attributes+i))
		}
		applied, err := json.Marshal(key)
		if err != nil {
			panic(err)
		}
		key.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": string(applied)}
	}
}
