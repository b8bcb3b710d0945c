package keys

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// Snapshot is the keys of a namespace, or of all, at one moment.
type Snapshot struct {
	Keys []v1alpha1.ApiKey
	// Left is the number of keys that are not in Keys, because there are more than were asked for.
	Left int64
	// Version is the resourceVersion of the moment, from which [Cluster.Follow] goes on.
	Version string
}

// Snapshot returns at most limit keys of a namespace, or of all namespaces if it is empty.
func (c *Cluster) Snapshot(ctx context.Context, namespace string, limit int64) (Snapshot, error) {
	list := &v1alpha1.ApiKeyList{}
	if err := c.client.List(ctx, list, &client.ListOptions{Namespace: namespace, Limit: limit}); err != nil {
		return Snapshot{}, err
	}
	s := Snapshot{Keys: list.Items, Version: list.ResourceVersion}
	if list.RemainingItemCount != nil {
		s.Left = *list.RemainingItemCount
	}
	return s, nil
}

// Follow returns what happens to the keys of a namespace, or of all namespaces if it is empty, after a moment. Bookmarks tell how far it
// came. The API server ends a watch after some minutes; Follow then goes on from the last resourceVersion.
func (c *Cluster) Follow(ctx context.Context, namespace, version string) (watch.Interface, error) {
	return c.client.Watch(ctx, &v1alpha1.ApiKeyList{}, &client.ListOptions{
		Namespace: namespace, Raw: &metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true},
	})
}
