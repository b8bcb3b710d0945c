package operator

import (
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
)

// cacheOptions limit the cache to the ApiKeys of some namespaces, if any are named, and to what is read of them: nothing else is asked of
// it.
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

// trim is a transform of a cache's objects, before they are kept.
func trim(object any) (any, error) {
	if key, ok := object.(*v1alpha1.ApiKey); ok {
		facts.Trim(key)
	}
	return object, nil
}
