package feed

import (
	"fmt"
	"slices"
	"time"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/index"
)

// roles is the store of a reflector for ApiRoles. It keeps what each role includes and replaces the whole
// catalogue at each change: a catalogue is small, and a change can affect what any role includes.
type roles struct {
	catalogue *index.Catalogue
	includes  map[string][]string
	replaced  func()
}

// Add implements [cache.ReflectorStore].
func (r *roles) Add(object any) error { return r.Update(object) }

// Update implements [cache.ReflectorStore].
func (r *roles) Update(object any) error {
	changed, err := r.take(object)
	if changed {
		r.replaceCatalogue()
	}
	return err
}

// Delete implements [cache.ReflectorStore].
func (r *roles) Delete(object any) error {
	role, ok := object.(*v1alpha1.ApiRole)
	if !ok {
		return fmt.Errorf("watch of ApiRoles returned a %T", object)
	}
	delete(r.includes, role.Name)
	r.replaceCatalogue()
	return nil
}

// Replace implements [cache.ReflectorStore].
func (r *roles) Replace(objects []any, _ string) error {
	clear(r.includes)
	for _, object := range objects {
		if _, err := r.take(object); err != nil {
			return err
		}
	}
	r.catalogue.Heard(time.Now())
	r.replaceCatalogue()
	r.replaced()
	return nil
}

// Resync implements [cache.ReflectorStore].
func (r *roles) Resync() error { return nil }

// UpdateResourceVersion implements [cache.ResourceVersionUpdater].
func (r *roles) UpdateResourceVersion(string) { r.catalogue.Heard(time.Now()) }

// take stores what a role includes and reports whether that changed. Most updates only change the key count
// in the status.
func (r *roles) take(object any) (bool, error) {
	role, ok := object.(*v1alpha1.ApiRole)
	if !ok {
		return false, fmt.Errorf("watch of ApiRoles returned a %T", object)
	}
	before, known := r.includes[role.Name]
	r.includes[role.Name] = role.Spec.Includes
	return !known || !slices.Equal(before, role.Spec.Includes), nil
}

func (r *roles) replaceCatalogue() {
	all := make([]access.Role, 0, len(r.includes))
	for name, includes := range r.includes {
		all = append(all, access.Role{Name: name, Includes: includes})
	}
	r.catalogue.Replace(access.NewCatalogue(all))
}
