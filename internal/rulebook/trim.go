package rulebook

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// trim takes from the metadata of a cached role, policy or namespace what nobody reads: all but its identity, and the labels of a
// namespace.
func trim(object any) (any, error) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return object, nil // a tombstone, which holds an object that was trimmed before
	}
	accessor.SetAnnotations(nil)
	accessor.SetManagedFields(nil)
	accessor.SetOwnerReferences(nil)
	accessor.SetFinalizers(nil)
	if _, isNamespace := object.(*metav1.PartialObjectMetadata); !isNamespace {
		accessor.SetLabels(nil)
	}
	return object, nil
}
