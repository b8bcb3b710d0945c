package operator

import (
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
)

// cacheOptions limits the cache to the ApiKeys of the given namespaces, or of all if there are none, and to the fields that
// are read.
func cacheOptions(namespaces []string) cache.Options {
	keys := cache.ByObject{Transform: trim}
	for _, namespace := range namespaces {
		if keys.Namespaces == nil {
			keys.Namespaces = map[string]cache.Config{}
		}
		keys.Namespaces[namespace] = cache.Config{}
	}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject:         map[client.Object]cache.ByObject{&v1alpha1.ApiKey{}: keys},
	}
}

// trim is a cache transform that removes fields that nobody reads.
func trim(object any) (any, error) {
	if key, ok := object.(*v1alpha1.ApiKey); ok {
		facts.Trim(key)
	}
	return object, nil
}
