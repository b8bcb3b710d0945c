package recording

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

func TestNames(t *testing.T) {
	key := func(uid types.UID) *v1alpha1.ApiKey {
		return &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shopper", UID: uid}}
	}
	for name, test := range map[string]struct {
		events func(toolscache.ResourceEventHandler)
		want   map[types.UID]bool
	}{
		"nothing": {func(toolscache.ResourceEventHandler) {}, map[types.UID]bool{"a": false}},
		"created": {func(h toolscache.ResourceEventHandler) { h.OnAdd(key("a"), true) }, map[types.UID]bool{"a": true, "b": false}},
		"changed": {func(h toolscache.ResourceEventHandler) {
			h.OnAdd(key("a"), false)
			h.OnUpdate(key("a"), key("a"))
		}, map[types.UID]bool{"a": true}},
		"deleted": {func(h toolscache.ResourceEventHandler) {
			h.OnAdd(key("a"), false)
			h.OnDelete(key("a"))
		}, map[types.UID]bool{"a": false}},
		"deleted while the watch was interrupted": {func(h toolscache.ResourceEventHandler) {
			h.OnAdd(key("a"), false)
			h.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "shop/shopper", Obj: key("a")})
		}, map[types.UID]bool{"a": false}},
		"created again while the watch was interrupted": {func(h toolscache.ResourceEventHandler) {
			h.OnAdd(key("a"), false)
			h.OnUpdate(key("a"), key("b"))
		}, map[types.UID]bool{"a": false, "b": true}},
	} {
		t.Run(name, func(t *testing.T) {
			n := &names{}
			test.events(n.handler())
			for uid, want := range test.want {
				got, found := n.find(uid)
				if found != want || found && got != (client.ObjectKey{Namespace: "shop", Name: "shopper"}) {
					t.Errorf("UID %s: %v, %v, want found %v", uid, got, found, want)
				}
			}
		})
	}
}
