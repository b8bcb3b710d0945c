package issuing

import (
	"context"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
)

// suspend writes to the status that an issued key is suspended or resumed, as planned. Verifiers don't wait for it: they read
// the spec.
func (r *Reconciler) suspend(ctx context.Context, s *scope) error {
	// The cache keeps no managed fields.
	live := &v1alpha1.ApiKey{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(s.key), live); err != nil {
		return err
	}
	if live.UID != s.key.UID || live.IsSuspended() != s.facts.Suspend {
		return errStale
	}
	by := suspendManager(live.ManagedFields)
	if s.plan.Action == lifecycle.Lift {
		return r.write(ctx, s, resumed{by})
	}
	return r.write(ctx, s, suspended{by})
}

// suspendManager returns the field manager that last wrote spec.suspend, or "" if the field is absent or its manager unknown.
func suspendManager(fields []metav1.ManagedFieldsEntry) string {
	var last metav1.ManagedFieldsEntry
	for _, entry := range fields {
		var owned struct {
			Spec struct {
				Suspend json.RawMessage `json:"f:suspend"`
			} `json:"f:spec"`
		}
		if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &owned) != nil || owned.Spec.Suspend == nil {
			continue
		}
		if last.Manager == "" || last.Time.Before(entry.Time) {
			last = entry
		}
	}
	return last.Manager
}
