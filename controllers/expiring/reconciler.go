// Package expiring deletes expired ApiKeys. It must not write status or touch Secrets.
package expiring

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// Reconciler deletes one expired ApiKey at a time. All fields are required.
type Reconciler struct {
	// Client reads ApiKeys from the cache, and deletes them.
	Client client.Client
	// Live reads an ApiKey from the API server before it is deleted.
	Live client.Reader
	// Recorder emits an event for each deletion.
	Recorder events.EventRecorder
	// Deleted counts the deletions.
	Deleted prometheus.Counter
	// Clock gives the time by which a reconcile judges a key.
	Clock clock.PassiveClock
	// Skew returns this machine's time minus the API server's. It is called before every deletion.
	Skew func(context.Context) (time.Duration, error)
	// TTLAfterExpired is how long an expired ApiKey is kept if spec.ttlAfterExpired is absent.
	TTLAfterExpired time.Duration
}

// NewDeletedCounter creates the counter of deleted ApiKeys and registers it. It panics if it is already registered.
func NewDeletedCounter(registry prometheus.Registerer) prometheus.Counter {
	deleted := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: monitoring.Operator, Name: "deleted_total",
		Help: "Expired ApiKeys that were deleted once their ttlAfterExpired had passed.",
	})
	registry.MustRegister(deleted)
	return deleted
}

// SetupWithManager adds the reconciler to a manager. workers is the number of keys that are reconciled at the same time.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, workers int) error {
	expired := predicate.NewPredicateFuncs(func(object client.Object) bool {
		key, ok := object.(*v1alpha1.ApiKey)
		return ok && key.IsExpired()
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("expiring").
		For(&v1alpha1.ApiKey{}, builder.WithPredicates(expired)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
}

// Reconcile deletes an expired ApiKey once its ttlAfterExpired has passed, unless it is kept as a tombstone.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	key := &v1alpha1.ApiKey{}
	if err := r.Client.Get(ctx, req.NamespacedName, key); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	// The whole reconcile judges by this one reading of the clock: a later one could be wrong although the skew was right.
	now := r.Clock.Now()
	plan, err := r.plan(key, lifecycle.ClockUnasked, now)
	if err != nil || plan.Due != lifecycle.AtCollection {
		return r.later(plan), err
	}

	// A deletion can't be undone, so it is decided on the live key and a correct clock: in the cache, a label of a GitOps tool or
	// a newer key of the same name may be missing.
	skew, err := r.Skew(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	if lifecycle.Jumped(now, r.Clock.Now()) {
		return ctrl.Result{RequeueAfter: lifecycle.StaleDelay}, nil
	}
	clock := lifecycle.ClockOff(skew)
	if plan, err = r.plan(key, clock, now); err != nil || plan.Action != lifecycle.Collect {
		if plan.Action == lifecycle.TellSkew {
			log.FromContext(ctx).Info("Not deleting an expired key because the clocks of the operator and the API server differ", "skew", skew.String())
		}
		return r.later(plan), err
	}
	// Decode into a new object: the cached one would keep status fields that the live key lacks.
	live := &v1alpha1.ApiKey{}
	if err := r.Live.Get(ctx, req.NamespacedName, live); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if live.UID != key.UID {
		return ctrl.Result{}, nil // the event of the new key enqueues it
	}
	if plan, err = r.plan(live, clock, now); err != nil || plan.Action != lifecycle.Collect {
		return r.later(plan), err
	}
	err = r.Client.Delete(ctx, live, client.Preconditions{UID: &live.UID, ResourceVersion: &live.ResourceVersion})
	switch {
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, nil
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: lifecycle.StaleDelay}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("delete expired ApiKey: %w", err)
	}
	r.Deleted.Inc()
	r.Recorder.Eventf(live, nil, corev1.EventTypeNormal, string(v1alpha1.ReasonCollected), "Delete",
		"deleted because the key expired at %s and its ttlAfterExpired has passed", live.Status.Expires)
	return ctrl.Result{}, nil
}

// plan plans the next step for the key at a time. clock says whether that time is known to be right.
func (r *Reconciler) plan(key *v1alpha1.ApiKey, clock lifecycle.Clock, now time.Time) (lifecycle.Step, error) {
	known, err := facts.Of(key, r.TTLAfterExpired)
	if err != nil {
		// The schema refuses such a spec, so a retry can't help.
		return lifecycle.Step{}, reconcile.TerminalError(err)
	}
	return lifecycle.Plan(known, lifecycle.Verdict{Clock: clock}, now), nil
}

// later requeues the key when its plan says so.
func (r *Reconciler) later(plan lifecycle.Step) ctrl.Result {
	return ctrl.Result{RequeueAfter: plan.Again.Wait(r.Clock.Now())}
}
