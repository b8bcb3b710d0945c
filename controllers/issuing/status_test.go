package issuing

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
)

// The rows of package lifecycle never lead to these writes. The reconciler has no client, so an attempt to write would panic.
func TestWriteRefusesInvalidTransitions(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	issued := v1alpha1.ApiKeyStatus{Hash: "sha256:00", IssuedAt: ptr.To(metav1.NewTime(noon))}
	for name, c := range map[string]struct {
		reason  v1alpha1.Reason
		status  v1alpha1.ApiKeyStatus
		outcome outcome
	}{
		"confirm without a commit":  {"", v1alpha1.ApiKeyStatus{}, confirmed{}},
		"commit for an expired key": {v1alpha1.ReasonExpired, issued, committed{"sha256:01", "ak_"}},
		"confirm an expired key":    {v1alpha1.ReasonExpired, issued, confirmed{}},
		"conflict of a refused key": {v1alpha1.ReasonNotAllowed, v1alpha1.ApiKeyStatus{}, conflicted{"in the way"}},
	} {
		key := &v1alpha1.ApiKey{Status: c.status}
		if c.reason != "" {
			key.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: string(c.reason)}}
		}
		s := &scope{key: key, now: noon, facts: lifecycle.Facts{Record: facts.Record(key), Deadline: expiry.Never()}}
		before := key.DeepCopy()
		err := (&Reconciler{}).write(t.Context(), s, c.outcome)
		if !errors.Is(err, reconcile.TerminalError(nil)) {
			t.Errorf("%s: got error %v, want a terminal error", name, err)
		}
		if s.key.Status.IssuedAt != nil && before.Status.IssuedAt == nil || s.key.ReadyReason() != before.ReadyReason() {
			t.Errorf("%s: the key was changed: %+v", name, s.key.Status)
		}
	}
}
