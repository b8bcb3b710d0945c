package recording

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
	"github.com/apikey-operator/apikey-operator/internal/usage"
)

// After a failure nothing is written for a pause, which doubles from minPause to maxPause.
const (
	minPause = time.Second
	maxPause = time.Minute
)

// writer is a runnable of the leader that records the uses in the ledger one by one.
type writer struct{ *Reconciler }

// Start implements manager.Runnable.
func (w writer) Start(ctx context.Context) error {
	ctx = log.IntoContext(ctx, log.FromContext(ctx).WithName("recording"))
	pause := minPause
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		for ctx.Err() == nil {
			next, ok := w.ledger.Next()
			if !ok {
				break
			}
			err := w.record(ctx, next)
			w.note(ctx, err)
			if err == nil {
				pause = minPause
				continue
			}
			w.ledger.Add(next)
			if apierrors.IsConflict(err) {
				continue // the cache is behind; the budget limits how often that can happen
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, maxPause)
		}
	}
}

// note logs when recording begins to fail, and when it works again.
func (w writer) note(ctx context.Context, err error) {
	logger := log.FromContext(ctx)
	switch {
	case err == nil && w.failing:
		w.failing = false
		logger.Info("Recording the use of keys works again")
	case err == nil || ctx.Err() != nil || apierrors.IsConflict(err) || w.failing:
	default:
		w.failing = true
		logger.Error(err, "Failed to record the use of a key, retrying")
	}
}

// errDropped says that the API server accepted a write but did not keep the field.
var errDropped = errors.New("the API server dropped status.lastUsedAt: apply config/crd of this version")

// record writes the last use of a key, if it must still be recorded. The write carries the resourceVersion that this was decided
// on, so that no use is recorded twice, and no other write is lost. A nil error says that nothing is left to do.
func (w writer) record(ctx context.Context, use usage.Waiting) error {
	key := &v1alpha1.ApiKey{}
	if err := w.Client.Get(ctx, client.ObjectKey{Namespace: use.Namespace, Name: use.Name}, key); err != nil {
		return client.IgnoreNotFound(err)
	}
	if string(key.UID) != use.UID {
		return nil
	}
	skew, err := w.Skew(ctx)
	if err != nil {
		return err
	}
	if lifecycle.ClockOff(skew) == lifecycle.Wrong {
		return fmt.Errorf("the clocks of the operator and the API server differ by %s", skew)
	}
	status := changes(key, use, w.Clock.Now().Add(-skew), w.Precision)
	if status == nil {
		return nil
	}
	if err := w.budget.Wait(ctx); err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": key.ResourceVersion},
		"status":   status,
	})
	if err != nil {
		return err
	}
	// The answer is decoded into a new object, which shows whether the API server kept the field.
	written := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	err = w.Client.Status().Patch(ctx, written, client.RawPatch(types.MergePatchType, patch))
	switch {
	case err == nil && written.Status.LastUsedAt == nil:
		err = errDropped
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsInvalid(err):
		w.Metrics.count(err)
		log.FromContext(ctx).Error(err, "Gave up recording the use of a key", "namespace", key.Namespace, "name", key.Name)
		return nil
	}
	w.Metrics.count(err)
	return err
}

// changes returns what the use changes in the status of a key, as a merge patch, or nil if nothing must be recorded. All times are
// limited to the time from issue to now. A write for the retiring token moves the last use of the key forward, too.
func changes(key *v1alpha1.ApiKey, use usage.Waiting, now time.Time, precision time.Duration) map[string]any {
	if !key.IsIssued() || !key.DeletionTimestamp.IsZero() {
		return nil
	}
	issued := key.Status.IssuedAt.Time
	at, retiringAt := usage.Clamp(use.At, issued, now), usage.Clamp(use.RetiringAt, issued, now)
	retiring := key.RetiringToken()
	isRetiring := retiring != nil && retiring.Hash == use.Retiring && usage.DueRetiring(retiringAt, key.RetiringLastUsedAt(), precision)
	if !isRetiring && !usage.Due(at, key.LastUsedAt(), precision) {
		return nil
	}
	status := map[string]any{}
	if at.After(key.LastUsedAt()) {
		status["lastUsedAt"] = metav1.NewTime(at)
	}
	if isRetiring {
		status["rotation"] = map[string]any{"retiring": map[string]any{"lastUsedAt": metav1.NewTime(retiringAt)}}
	}
	return status
}
