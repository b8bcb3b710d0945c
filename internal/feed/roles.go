package feed

import (
	"fmt"
	"slices"
	"time"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/index"
)

// roles is what a reflector of ApiRoles writes to. It keeps what each includes, and tells the index of all of it at each change: a
// catalogue is small, and what roles include is resolved as a whole.
type roles struct {
	catalogue *index.Catalogue
	includes  map[string][]string
	replaced  func()
}

// Add implements cache.ReflectorStore.
func (r *roles) Add(object any) error { return r.Update(object) }

// Update implements cache.ReflectorStore.
func (r *roles) Update(object any) error {
	changed, err := r.take(object)
	if changed {
		r.tell()
	}
	return err
}

// Delete implements cache.ReflectorStore.
func (r *roles) Delete(object any) error {
	role, ok := object.(*v1alpha1.ApiRole)
	if !ok {
		return fmt.Errorf("a %T where ApiRoles are watched", object)
	}
	delete(r.includes, role.Name)
	r.tell()
	return nil
}

// Replace implements cache.ReflectorStore.
func (r *roles) Replace(objects []any, _ string) error {
	clear(r.includes)
	for _, object := range objects {
		if _, err := r.take(object); err != nil {
			return err
		}
	}
	r.catalogue.Heard(time.Now())
	r.tell()
	r.replaced()
	return nil
}

// Resync implements cache.ReflectorStore.
func (r *roles) Resync() error { return nil }

// UpdateResourceVersion implements cache.ResourceVersionUpdater.
func (r *roles) UpdateResourceVersion(string) { r.catalogue.Heard(time.Now()) }

// take notes what a role includes, and tells whether that is news: most updates are of the count in its status.
func (r *roles) take(object any) (bool, error) {
	role, ok := object.(*v1alpha1.ApiRole)
	if !ok {
		return false, fmt.Errorf("a %T where ApiRoles are watched", object)
	}
	before, known := r.includes[role.Name]
	r.includes[role.Name] = role.Spec.Includes
	return !known || !slices.Equal(before, role.Spec.Includes), nil
}

func (r *roles) tell() {
	all := make([]access.Role, 0, len(r.includes))
	for name, includes := range r.includes {
		all = append(all, access.Role{Name: name, Includes: includes})
	}
	r.catalogue.Replace(access.NewCatalogue(all))
}
