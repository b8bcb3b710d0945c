// Package build makes objects for tests: good ones by default, with what a test is about laid over them.
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

// Option lays something over an ApiKey.
type Option func(*v1alpha1.ApiKey)

// ApiKey is a key of one role that lives for ninety days.
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

// After sets the key's life.
func After(life v1alpha1.Duration) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Expiry = v1alpha1.ApiKeyExpiry{After: life} }
}

// At sets the key's deadline.
func At(moment string) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Expiry = v1alpha1.ApiKeyExpiry{At: moment} }
}

// Never makes the key live for ever.
func Never() Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Expiry = v1alpha1.ApiKeyExpiry{Never: ptr.To(true)} }
}

// TTL sets how long the key stays after it has expired.
func TTL(ttl v1alpha1.Duration) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.TTLAfterExpired = ttl }
}

// CIDRs ties the key to networks.
func CIDRs(cidrs ...string) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.CIDRs = cidrs }
}

// Roles replaces the key's roles.
func Roles(roles ...string) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Roles = roles }
}

// Secret says how the token is delivered.
func Secret(secret v1alpha1.ApiKeySecret) Option {
	return func(key *v1alpha1.ApiKey) { key.Spec.Secret = &secret }
}

// Label adds a label.
func Label(name, value string) Option {
	return func(key *v1alpha1.ApiKey) { metav1.SetMetaDataLabel(&key.ObjectMeta, name, value) }
}

// Annotation adds an annotation.
func Annotation(name, value string) Option {
	return func(key *v1alpha1.ApiKey) { metav1.SetMetaDataAnnotation(&key.ObjectMeta, name, value) }
}

// ApiRole is an entry of the catalogue.
func ApiRole(name string, includes ...string) *v1alpha1.ApiRole {
	return &v1alpha1.ApiRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.ApiRoleSpec{Description: "What " + name + " allows.", Includes: includes},
	}
}

// PolicyOption lays something over an ApiKeyPolicy.
type PolicyOption func(*v1alpha1.ApiKeyPolicySpec)

// Policy allows some roles in every namespace, and demands nothing else.
func Policy(name string, roles []string, options ...PolicyOption) *v1alpha1.ApiKeyPolicy {
	policy := &v1alpha1.ApiKeyPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ApiKeyPolicySpec{Roles: roles}}
	for _, option := range options {
		option(&policy.Spec)
	}
	return policy
}

// MaxLifetime sets the longest life.
func MaxLifetime(most v1alpha1.Duration) PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) { spec.MaxLifetime = most }
}

// AllowedCIDRs sets the allowed networks.
func AllowedCIDRs(cidrs ...string) PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) { spec.AllowedCIDRs = cidrs }
}

// RequireExpiry refuses keys that never expire.
func RequireExpiry() PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) { spec.RequireExpiry = ptr.To(true) }
}

// Namespaces selects namespaces by a label.
func Namespaces(label string, value v1alpha1.LabelValue) PolicyOption {
	return func(spec *v1alpha1.ApiKeyPolicySpec) {
		spec.NamespaceSelector = &v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{label: value}}
	}
}

// TokenSecret is a Secret such as the operator makes for a key, with any text for a token.
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

// Worst makes a key as large as the schema allows, unlike that of any other number, and annotates it as kubectl apply does.
func Worst(number int) Option {
	return func(key *v1alpha1.ApiKey) {
		const roles, length, networks = 256, 64, 64 // 16 KiB of names
		key.Spec.DisplayName = strings.Repeat("k", 256)
		key.Spec.Roles = make([]string, roles)
		for i := range key.Spec.Roles {
			key.Spec.Roles[i] = fmt.Sprintf("%0*x", length, number*roles+i)
		}
		key.Spec.CIDRs = make([]string, networks)
		for i := range key.Spec.CIDRs {
			key.Spec.CIDRs[i] = fmt.Sprintf("2001:db8:%x:%x::/64", number, i)
		}
		applied, err := json.Marshal(key)
		if err != nil {
			panic(err)
		}
		key.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": string(applied)}
	}
}
