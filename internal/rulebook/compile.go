package rulebook

import (
	"errors"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/grant"
)

// compile compiles the objects of the cluster. An object that is being deleted counts until it is gone.
func compile(roles []v1alpha1.ApiRole, policies []v1alpha1.ApiKeyPolicy, options Options) *grant.Rules {
	entries := make([]access.Role, len(roles))
	for i := range roles {
		entries[i] = access.Role{Name: roles[i].Name, Includes: roles[i].Spec.Includes}
	}
	terms := make([]grant.Terms, len(policies))
	for i := range policies {
		terms[i] = translate(&policies[i])
	}
	return grant.NewRules(access.NewCatalogue(entries), terms, options.RequireCatalogue, options.RequirePolicy)
}

// translate converts a policy. A policy that is invalid, such as one of a later API version, allows nothing.
func translate(p *v1alpha1.ApiKeyPolicy) grant.Terms {
	terms := grant.Terms{
		Name:          p.Name,
		Roles:         p.Spec.Roles,
		AllowedCIDRs:  p.Spec.AllowedCIDRs,
		RequireExpiry: ptr.Deref(p.Spec.RequireExpiry, false),

		RequiredAttributes: p.Spec.RequiredAttributes,
		AllowedAttributes:  allowedAttributes(p.Spec.Attributes),
	}
	selector, err := metav1.LabelSelectorAsSelector(p.Spec.NamespaceSelector.LabelSelector())
	if err != nil {
		terms.Unreadable = "spec.namespaceSelector: " + err.Error()
		return terms
	}
	terms.Selects = func(set map[string]string) bool { return selector.Matches(labels.Set(set)) }
	if terms.MaxLifetime, err = maxLifetime(p.Spec.MaxLifetime); err != nil {
		terms.Unreadable = "spec.maxLifetime: " + err.Error()
	}
	return terms
}

func allowedAttributes(attributes map[string]v1alpha1.AttributeValues) map[string][]string {
	allowed := make(map[string][]string, len(attributes))
	for name, values := range attributes {
		texts := make([]string, len(values))
		for i, value := range values {
			texts[i] = string(value)
		}
		allowed[name] = texts
	}
	return allowed
}

func maxLifetime(text v1alpha1.Duration) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	most, err := expiry.ParseDuration(string(text))
	if err == nil && most == 0 {
		err = errors.New(strconv.Quote(string(text)) + " must be more than zero")
	}
	return most, err
}
