package rulebook

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// trim removes metadata that no controller reads from a role, policy or namespace before it is cached. It keeps the
// identity, and the labels of namespaces.
func trim(object any) (any, error) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return object, nil // a tombstone, whose object is already trimmed
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
