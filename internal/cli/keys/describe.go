package keys

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/gitops"
)

// Description is everything that a user can know about a key.
type Description struct {
	Key *v1alpha1.ApiKey
	// Roles are the roles of the spec, with what the catalogue says of them.
	Roles []RoleLine
	// NoCatalogue says that the catalogue has no role at all.
	NoCatalogue bool
	// Events are the events about the key, oldest first.
	Events []corev1.Event
	// DeclaredBy is the deployment tool that manages the key, such as Flux, or empty.
	DeclaredBy string
	// Unread lists the kinds that the user may not read, such as apiroles.
	Unread []string
}

// RoleLine is a role of a key.
type RoleLine struct {
	Name string
	// Description is the catalogue's text, or empty if the catalogue has no such role or can't be read.
	Description string
	// Includes are all roles that the role includes, directly or through others.
	Includes []string
}

// Describe returns the description of a key.
func (c *Cluster) Describe(ctx context.Context, namespace, name string) (*Description, error) {
	key, err := c.Get(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	d := &Description{Key: key, DeclaredBy: gitops.DeclaredBy(key.Labels, key.Annotations)}
	roles, err := c.Roles(ctx)
	if err := d.noteForbidden("apiroles", err); err != nil {
		return nil, err
	}
	d.Roles, d.NoCatalogue = Lines(key.Spec.Roles, roles), err == nil && len(roles) == 0
	events := &corev1.EventList{}
	err = c.client.List(ctx, events, client.InNamespace(namespace), &client.ListOptions{Raw: &metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(key.UID)).String(),
	}})
	if err := d.noteForbidden("events", err); err != nil {
		return nil, err
	}
	d.Events = events.Items
	slices.SortStableFunc(d.Events, func(a, b corev1.Event) int { return EventTime(a).Compare(EventTime(b).Time) })
	return d, nil
}

func (d *Description) noteForbidden(kind string, err error) error {
	if apierrors.IsForbidden(err) {
		d.Unread = append(d.Unread, kind)
		return nil
	}
	return err
}

// EventTime returns when an event happened last.
func EventTime(e corev1.Event) metav1.Time {
	at := e.LastTimestamp.Time
	if e.Series != nil && e.Series.LastObservedTime.After(at) {
		at = e.Series.LastObservedTime.Time
	}
	if at.IsZero() {
		at = e.EventTime.Time
	}
	if at.IsZero() {
		at = e.CreationTimestamp.Time
	}
	return metav1.NewTime(at)
}

// Lines returns what the catalogue says of the named roles.
func Lines(names []string, roles []v1alpha1.ApiRole) []RoleLine {
	catalogue := catalogueOf(roles)
	described := make(map[string]string, len(roles))
	for i := range roles {
		described[roles[i].Name] = roles[i].Spec.Description
	}
	lines := make([]RoleLine, len(names))
	for i, name := range names {
		included := slices.DeleteFunc(slices.Clone(catalogue.Closure([]string{name})), func(other string) bool { return other == name })
		slices.Sort(included)
		lines[i] = RoleLine{Name: name, Description: described[name], Includes: included}
	}
	return lines
}

// CatalogueLines returns the whole catalogue, by name.
func CatalogueLines(roles []v1alpha1.ApiRole) []RoleLine {
	names := make([]string, len(roles))
	for i := range roles {
		names[i] = roles[i].Name
	}
	slices.SortFunc(names, cmp.Compare)
	return Lines(names, roles)
}
