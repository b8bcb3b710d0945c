package issuing

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// What an informer tells after an interrupted watch can't be had from a real API server at will.
func TestAppeared(t *testing.T) {
	key := func(uid types.UID, generation int64, hash string) *v1alpha1.ApiKey {
		return &v1alpha1.ApiKey{
			ObjectMeta: metav1.ObjectMeta{Name: "key", UID: uid, Generation: generation},
			Status:     v1alpha1.ApiKeyStatus{Hash: hash},
		}
	}
	for name, c := range map[string]struct {
		old, new *v1alpha1.ApiKey
		want     bool
	}{
		"its own status write":                    {key("a", 1, ""), key("a", 1, "sha256:0"), false},
		"another key of the name, after a relist": {key("a", 1, ""), key("b", 1, ""), true},
		"a spec that changed after all":           {key("a", 1, ""), key("a", 2, ""), true},
	} {
		if got := appeared(event.UpdateEvent{ObjectOld: c.old, ObjectNew: c.new}); got != c.want {
			t.Errorf("%s: looked at: %v", name, got)
		}
	}
}
