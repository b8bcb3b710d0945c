package recording

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// names finds the name of an ApiKey by its UID. An index of the cache would do the same, but it keeps two sets of names for each key,
// which took 500 bytes more.
type names struct {
	mu    sync.RWMutex
	byUID map[types.UID]client.ObjectKey
}

// follow makes names follow a cache of ApiKeys. synced reports whether the keys of the cache's first list have their names.
func (n *names) follow(ctx context.Context, keys cache.Cache) (synced func() bool, err error) {
	informer, err := keys.GetInformer(ctx, &v1alpha1.ApiKey{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("watch ApiKeys: %w", err)
	}
	registration, err := informer.AddEventHandler(n.handler())
	if err != nil {
		return nil, fmt.Errorf("watch ApiKeys: %w", err)
	}
	return registration.HasSynced, nil
}

func (n *names) handler() toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: n.add,
		UpdateFunc: func(before, now any) {
			// A key that was deleted and created again while a watch was interrupted is an update to the cache.
			if uidOf(before) != uidOf(now) {
				n.remove(before)
				n.add(now)
			}
		},
		DeleteFunc: n.remove,
	}
}

// find returns the name of the key with a UID, and whether there is one.
func (n *names) find(uid types.UID) (client.ObjectKey, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	name, ok := n.byUID[uid]
	return name, ok
}

func (n *names) add(object any) {
	key, ok := object.(*v1alpha1.ApiKey)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byUID == nil {
		n.byUID = map[types.UID]client.ObjectKey{}
	}
	n.byUID[key.UID] = client.ObjectKeyFromObject(key)
}

func (n *names) remove(object any) {
	if unknown, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byUID, uidOf(object))
}

func uidOf(object any) types.UID {
	if key, ok := object.(*v1alpha1.ApiKey); ok {
		return key.UID
	}
	return ""
}
