package issuing

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// A real API server can't be made to produce the events that follow an interrupted watch.
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
		"status write": {key("a", 1, ""), key("a", 1, "sha256:0"), false},
		"another key with the same name, after a relist": {key("a", 1, ""), key("b", 1, ""), true},
		"changed spec": {key("a", 1, ""), key("a", 2, ""), true},
	} {
		if got := appeared(event.UpdateEvent{ObjectOld: c.old, ObjectNew: c.new}); got != c.want {
			t.Errorf("%s: appeared is %v, want %v", name, got, c.want)
		}
	}
}
