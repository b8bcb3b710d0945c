package rulebook

import (
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

func TestTrimLeavesWhatIsRead(t *testing.T) {
	full := metav1.ObjectMeta{
		Name: "a", UID: "1", ResourceVersion: "2", Generation: 3,
		Labels: map[string]string{"team": "shop"}, Annotations: map[string]string{"note": "long"},
		Finalizers: []string{"example.com/held"}, OwnerReferences: []metav1.OwnerReference{{Name: "shop"}},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
	}
	meta := metav1.ObjectMeta{Name: "a", UID: "1", ResourceVersion: "2", Generation: 3}
	labelled := meta
	labelled.Labels = full.Labels
	spec := v1alpha1.ApiRoleSpec{Includes: []string{"b"}}
	gone := cache.DeletedFinalStateUnknown{Key: "a", Obj: &v1alpha1.ApiRole{ObjectMeta: meta}}
	for name, c := range map[string]struct{ object, want any }{
		"a role":      {&v1alpha1.ApiRole{ObjectMeta: *full.DeepCopy(), Spec: spec}, &v1alpha1.ApiRole{ObjectMeta: meta, Spec: spec}},
		"a policy":    {&v1alpha1.ApiKeyPolicy{ObjectMeta: *full.DeepCopy()}, &v1alpha1.ApiKeyPolicy{ObjectMeta: meta}},
		"a namespace": {&metav1.PartialObjectMetadata{ObjectMeta: *full.DeepCopy()}, &metav1.PartialObjectMetadata{ObjectMeta: labelled}},
		"a tombstone": {gone, gone},
	} {
		if got, err := trim(c.object); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}
