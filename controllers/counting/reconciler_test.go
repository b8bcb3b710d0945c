package counting

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
)

func role(name string, keys *int32, includes ...string) *v1alpha1.ApiRole {
	return &v1alpha1.ApiRole{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ApiRoleSpec{Includes: includes}, Status: v1alpha1.ApiRoleStatus{Keys: keys},
	}
}

func key(name string, reason v1alpha1.Reason, roles ...string) *v1alpha1.ApiKey {
	return &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       v1alpha1.ApiKeySpec{Roles: roles},
		Status:     v1alpha1.ApiKeyStatus{Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: string(reason)}}},
	}
}

func TestReconcile(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	writes := 0
	server := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.ApiRole{}).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourcePatch: func(
				ctx context.Context, c client.Client, name string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption,
			) error {
				writes++
				return c.SubResource(name).Patch(ctx, object, patch, options...)
			},
		}).
		WithObjects(
			role("admin", nil, "write"), role("write", ptr.To[int32](7), "read"), role("read", ptr.To[int32](3)), role("unused", nil),
			key("a", v1alpha1.ReasonIssued, "admin"),
			key("b", v1alpha1.ReasonIssuing, "write", "read"),
			key("c", v1alpha1.ReasonNotAllowed, "read"),
			key("over", v1alpha1.ReasonExpired, "admin", "read"),
		).Build()
	r := &Reconciler{Client: server, Rules: rulebook.NewLive(server, rulebook.Options{}), Delay: DefaultDelay}
	if _, err := r.Reconcile(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int32{"admin": 1, "write": 2, "read": 3, "unused": 0} {
		got := &v1alpha1.ApiRole{}
		if err := server.Get(t.Context(), client.ObjectKey{Name: name}, got); err != nil {
			t.Fatal(err)
		}
		if got.Status.Keys == nil || *got.Status.Keys != want {
			t.Errorf("%s: got %d keys, want %d", name, ptr.Deref(got.Status.Keys, -1), want)
		}
	}
	if writes != 3 {
		t.Errorf("got %d writes, want 3: the count of read was already right", writes)
	}
	if _, err := r.Reconcile(t.Context(), all); err != nil || writes != 3 {
		t.Errorf("got %d writes after a second reconcile, want 3; error %v", writes, err)
	}
}

func TestCarries(t *testing.T) {
	deleted := key("a", v1alpha1.ReasonIssued)
	deleted.DeletionTimestamp = ptr.To(metav1.Now())
	for name, c := range map[string]struct {
		object client.Object
		want   bool
	}{
		"an issued key":  {key("a", v1alpha1.ReasonIssued), true},
		"a pending key":  {key("a", v1alpha1.ReasonUnknownRole), true},
		"an expired key": {key("a", v1alpha1.ReasonExpired), false},
		"a deleted key":  {deleted, false},
		"another kind":   {role("a", nil), false},
	} {
		if got := carries(c.object); got != c.want {
			t.Errorf("%s: carries is %t, want %t", name, got, c.want)
		}
	}
}
