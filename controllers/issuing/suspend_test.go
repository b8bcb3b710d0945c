package issuing

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSuspendManager(t *testing.T) {
	at := func(seconds int64) *metav1.Time { return &metav1.Time{Time: time.Unix(seconds, 0)} }
	wrote := func(manager, fields string, at *metav1.Time) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Time: at, FieldsV1: metav1.NewFieldsV1(fields)}
	}
	const suspend, others = `{"f:spec":{"f:suspend":{}}}`, `{"f:spec":{"f:roles":{}}}`
	for name, c := range map[string]struct {
		fields []metav1.ManagedFieldsEntry
		want   string
	}{
		"nobody":             {nil, ""},
		"others":             {[]metav1.ManagedFieldsEntry{wrote("kubectl", others, at(1))}, ""},
		"one":                {[]metav1.ManagedFieldsEntry{wrote("kubectl", others, at(2)), wrote("flux", suspend, at(1))}, "flux"},
		"the last of two":    {[]metav1.ManagedFieldsEntry{wrote("a", suspend, at(1)), wrote("b", suspend, at(2))}, "b"},
		"the first, later":   {[]metav1.ManagedFieldsEntry{wrote("a", suspend, at(2)), wrote("b", suspend, at(1))}, "a"},
		"one without a time": {[]metav1.ManagedFieldsEntry{wrote("a", suspend, nil)}, "a"},
		"what is not JSON":   {[]metav1.ManagedFieldsEntry{wrote("a", "{", at(1)), {Manager: "b"}, wrote("c", suspend, at(1))}, "c"},
	} {
		if got := suspendManager(c.fields); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
