package keys

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// Right is something that RBAC may allow a user to do.
type Right struct {
	Verb, Group, Resource, Subresource string
	// Namespace is empty for all namespaces, and for kinds without one. Name is empty for all names.
	Namespace, Name string
}

// OnKeys returns the rights to do something with the ApiKeys of a namespace, or of all namespaces if it is empty.
func OnKeys(namespace string, verbs ...string) []Right {
	rights := make([]Right, len(verbs))
	for i, verb := range verbs {
		rights[i] = Right{Verb: verb, Group: v1alpha1.GroupVersion.Group, Resource: "apikeys", Namespace: namespace}
	}
	return rights
}

// OnSecret returns the rights to do something with a Secret.
func OnSecret(namespace, name string, verbs ...string) []Right {
	rights := make([]Right, len(verbs))
	for i, verb := range verbs {
		rights[i] = Right{Verb: verb, Resource: "secrets", Namespace: namespace, Name: name}
	}
	return rights
}

// String describes the right as the API server does, such as: create apikeys.apikey-operator.io in namespace "shop".
func (r Right) String() string {
	text := r.Verb + " " + r.Resource
	if r.Subresource != "" {
		text += "/" + r.Subresource
	}
	if r.Group != "" {
		text += "." + r.Group
	}
	if r.Name != "" {
		text += fmt.Sprintf(" %q", r.Name)
	}
	if r.Namespace != "" {
		text += fmt.Sprintf(" in namespace %q", r.Namespace)
	}
	return text
}

// Lacking returns those of the rights that the user does not have.
func (c *Cluster) Lacking(ctx context.Context, rights ...Right) ([]Right, error) {
	var lacking []Right
	for _, right := range rights {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: right.Verb, Group: right.Group, Resource: right.Resource, Subresource: right.Subresource,
				Namespace: right.Namespace, Name: right.Name,
			},
		}}
		if err := c.client.Create(ctx, review); err != nil {
			return nil, fmt.Errorf("ask whether you may %s: %w", right, err)
		}
		if !review.Status.Allowed {
			lacking = append(lacking, right)
		}
	}
	return lacking, nil
}

// Enumerate joins descriptions of rights.
func Enumerate(rights []Right) string {
	texts := make([]string, len(rights))
	for i, right := range rights {
		texts[i] = right.String()
	}
	return strings.Join(texts, ", ")
}
