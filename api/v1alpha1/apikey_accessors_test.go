package v1alpha1_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

func condition(conditionType string, status metav1.ConditionStatus, reason v1alpha1.Reason) metav1.Condition {
	return metav1.Condition{Type: conditionType, Status: status, Reason: string(reason)}
}

func TestStatusAccessors(t *testing.T) {
	type answers struct {
		reason                                     v1alpha1.Reason
		ready, committed, issued, expired, stalled bool
	}
	const ready, stalled = v1alpha1.ConditionReady, v1alpha1.ConditionStalled
	hash, now := "sha256:00", &metav1.Time{}
	for name, c := range map[string]struct {
		status v1alpha1.ApiKeyStatus
		want   answers
	}{
		"no conditions": {v1alpha1.ApiKeyStatus{ObservedGeneration: -1}, answers{}},
		"committed": {
			v1alpha1.ApiKeyStatus{Hash: hash, Conditions: []metav1.Condition{condition(ready, "False", v1alpha1.ReasonIssuing)}},
			answers{reason: v1alpha1.ReasonIssuing, committed: true},
		},
		"issued": {
			v1alpha1.ApiKeyStatus{Hash: hash, IssuedAt: now, Conditions: []metav1.Condition{condition(ready, "True", v1alpha1.ReasonIssued)}},
			answers{reason: v1alpha1.ReasonIssued, ready: true, committed: true, issued: true},
		},
		"expired": {
			v1alpha1.ApiKeyStatus{Hash: hash, IssuedAt: now, Conditions: []metav1.Condition{
				condition(stalled, "True", v1alpha1.ReasonExpired), condition(ready, "False", v1alpha1.ReasonExpired),
			}},
			answers{reason: v1alpha1.ReasonExpired, committed: true, issued: true, expired: true, stalled: true},
		},
		"Expired with status True": {
			v1alpha1.ApiKeyStatus{Conditions: []metav1.Condition{condition(ready, "True", v1alpha1.ReasonExpired)}},
			answers{reason: v1alpha1.ReasonExpired, ready: true, expired: true},
		},
		"Stalled without Ready": {
			v1alpha1.ApiKeyStatus{Conditions: []metav1.Condition{condition(stalled, "True", v1alpha1.ReasonExpired)}},
			answers{stalled: true},
		},
	} {
		key := &v1alpha1.ApiKey{Status: c.status}
		got := answers{
			reason: key.ReadyReason(), ready: key.IsReady(), committed: key.IsCommitted(), issued: key.IsIssued(), expired: key.IsExpired(),
			stalled: key.Condition(stalled) != nil,
		}
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestIsKept(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "false": false, "": false, "True": false} {
		key := &v1alpha1.ApiKey{}
		key.Annotations = map[string]string{v1alpha1.AnnotationKeep: value}
		if got := key.IsKept(); got != want {
			t.Errorf("annotation %q: IsKept is %t, want %t", value, got, want)
		}
	}
	if (&v1alpha1.ApiKey{}).IsKept() {
		t.Error("IsKept is true without the annotation")
	}
}

func TestSecretNameAndKey(t *testing.T) {
	for name, c := range map[string]struct {
		secret    *v1alpha1.ApiKeySecret
		name, key string
	}{
		"defaults":     {nil, "orders", "token"},
		"another name": {&v1alpha1.ApiKeySecret{Name: "credentials"}, "credentials", "token"},
		"another key":  {&v1alpha1.ApiKeySecret{Key: "api-key"}, "orders", "api-key"},
	} {
		key := &v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Secret: c.secret}}
		key.Name = "orders"
		if key.SecretName() != c.name || key.SecretKey() != c.key {
			t.Errorf("%s: got key %s in Secret %s, want key %s in Secret %s", name, key.SecretKey(), key.SecretName(), c.key, c.name)
		}
	}
}
