package expiring

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
)

// These tests use a fake API server, which ignores the preconditions of a deletion. test/integration covers those with a real one.

const ttl = time.Hour

var (
	deadline = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	due      = deadline.Add(ttl)
)

// expired returns a key that was marked as expired at its deadline.
func expired(change ...func(*v1alpha1.ApiKey)) *v1alpha1.ApiKey {
	at := metav1.NewTime(deadline)
	key := &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders", UID: "1"},
		Status: v1alpha1.ApiKeyStatus{ExpiresAt: &at, Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(v1alpha1.ReasonExpired), LastTransitionTime: at,
		}}},
	}
	for _, f := range change {
		f(key)
	}
	return key
}

func kept(key *v1alpha1.ApiKey) {
	key.Annotations = map[string]string{v1alpha1.AnnotationKeep: "true"}
}

func TestReconcile(t *testing.T) {
	unmarked := func(key *v1alpha1.ApiKey) { key.Status.Conditions = nil }
	another := func(key *v1alpha1.ApiKey) { key.UID = "2" }
	failure := errors.New("no answer")
	for name, c := range map[string]struct {
		// cached is the key in the cache, and live the key in the API server, which defaults to cached.
		cached, live *v1alpha1.ApiKey
		now          time.Time
		skew         time.Duration
		skewErr      error
		// early and late are how far the clock jumps while the skew is measured, and while the live key is read.
		early, late time.Duration

		deleted bool
		// again is the longest acceptable RequeueAfter; 0 means any.
		again time.Duration
	}{
		"a nanosecond before it is due":      {cached: expired(), now: due.Add(-1), again: lifecycle.MaxWait},
		"when it is due":                     {cached: expired(), now: due, deleted: true},
		"after it is due":                    {cached: expired(), now: due.Add(time.Hour), deleted: true},
		"with a skew within tolerance":       {cached: expired(), now: due, skew: lifecycle.Tolerance, deleted: true},
		"with a skew beyond tolerance":       {cached: expired(), now: due, skew: lifecycle.Tolerance + 1, again: lifecycle.MaxWait},
		"with a skew that can't be measured": {cached: expired(), now: due, skewErr: failure},
		"with its own ttlAfterExpired":       {cached: expired(func(k *v1alpha1.ApiKey) { k.Spec.TTLAfterExpired = "0s" }), now: deadline, deleted: true},
		"with a clock that jumps ahead once it was measured": {
			cached: expired(), live: expired(func(k *v1alpha1.ApiKey) { k.Spec.TTLAfterExpired = "2h" }), now: due, late: 48 * time.Hour, again: lifecycle.MaxWait,
		},
		"with a clock that is corrected while it is measured":   {cached: expired(), now: due, early: -time.Hour, again: time.Second},
		"with a clock that is set forward while it is measured": {cached: expired(), now: due, early: 24 * time.Hour, again: time.Second},
		"not marked as expired":                                 {cached: expired(unmarked), now: due, again: 0},
		"kept":                                                  {cached: expired(kept), now: due},
		"kept, but not in the cache":                            {cached: expired(), live: expired(kept), now: due},
		"replaced by an expired key":                            {cached: expired(), live: expired(another), now: due},
		"replaced by a valid key":                               {cached: expired(), live: expired(another, unmarked), now: due},
	} {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := v1alpha1.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			c.cached.Spec.Expiry.After = "1h"
			if c.live == nil {
				c.live = c.cached
			}
			server := fake.NewClientBuilder().WithScheme(scheme).WithObjects(c.live.DeepCopy()).Build()
			cache := interceptor.NewClient(server, interceptor.Funcs{
				Get: func(_ context.Context, _ client.WithWatch, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
					c.cached.DeepCopyInto(object.(*v1alpha1.ApiKey))
					return nil
				},
			})
			clock := clocktesting.NewFakeClock(c.now)
			live := interceptor.NewClient(server, interceptor.Funcs{
				Get: func(ctx context.Context, next client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
					clock.Step(c.late)
					return next.Get(ctx, key, object, options...)
				},
			})
			r := &Reconciler{
				Client: cache, Live: live, Recorder: events.NewFakeRecorder(1), Deleted: NewDeletedCounter(prometheus.NewRegistry()),
				Clock: clock,
				Skew: func(context.Context) (time.Duration, error) {
					clock.Step(c.early)
					return c.skew, c.skewErr
				},
				TTLAfterExpired: ttl,
			}
			result, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(c.live)})
			if !errors.Is(err, c.skewErr) {
				t.Fatalf("got error %v, want %v", err, c.skewErr)
			}
			err = server.Get(t.Context(), client.ObjectKeyFromObject(c.live), &v1alpha1.ApiKey{})
			if client.IgnoreNotFound(err) != nil {
				t.Fatal(err)
			}
			if deleted := err != nil; deleted != c.deleted {
				t.Errorf("deleted: %t, want %t", deleted, c.deleted)
			}
			if c.again > 0 && (result.RequeueAfter <= 0 || result.RequeueAfter > c.again) {
				t.Errorf("requeued after %s, want at most %s", result.RequeueAfter, c.again)
			}
		})
	}
}
