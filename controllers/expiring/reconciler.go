// Package expiring deletes expired ApiKeys and nothing else; it writes no status and touches no Secret.
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
	// Live reads an ApiKey from the API server, before it is deleted.
	Live client.Reader
	// Recorder tells of a deletion in an event.
	Recorder events.EventRecorder
	// Deleted counts the deletions.
	Deleted prometheus.Counter
	// Clock is read once a pass.
	Clock clock.PassiveClock
	// Skew is this machine's time less the API server's. It is asked before a deletion.
	Skew func(context.Context) (time.Duration, error)
	// TTLAfterExpired is how long an expired ApiKey stays where its spec does not say.
	TTLAfterExpired time.Duration
}

// NewDeletedCounter makes the counter of deletions and registers it.
func NewDeletedCounter(registry prometheus.Registerer) prometheus.Counter {
	deleted := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: monitoring.Operator, Name: "deleted_total",
		Help: "Expired ApiKeys that were deleted once their ttlAfterExpired had passed.",
	})
	registry.MustRegister(deleted)
	return deleted
}

// SetupWithManager registers the reconciler with a manager, at the given number of workers.
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

// Reconcile deletes an expired ApiKey once its time has come, unless it is kept as a tombstone.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	key := &v1alpha1.ApiKey{}
	if err := r.Client.Get(ctx, req.NamespacedName, key); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	plan, err := r.plan(key, lifecycle.ClockUnasked)
	if err != nil || plan.Due != lifecycle.AtCollection {
		return r.later(plan), err
	}

	// Deletion can't be taken back: the cache may be behind (a mark of a GitOps tool, a key of the same name), and so may the
	// machine's clock.
	skew, err := r.Skew(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	clock := lifecycle.ClockOff(skew)
	if plan, err = r.plan(key, clock); err != nil || plan.Action != lifecycle.Collect {
		if plan.Action == lifecycle.TellSkew {
			log.FromContext(ctx).Info("not deleting an expired key: this machine's clock and the API server's disagree", "skew", skew.String())
		}
		return r.later(plan), err
	}
	// A new object: decoding into the cached one would keep its status where the live key has none.
	live := &v1alpha1.ApiKey{}
	if err := r.Live.Get(ctx, req.NamespacedName, live); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if live.UID != key.UID {
		return ctrl.Result{}, nil // its own event brings the successor here
	}
	if plan, err = r.plan(live, clock); err != nil || plan.Action != lifecycle.Collect {
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
		"deleted, since it expired at %s and its ttlAfterExpired has passed", live.Status.Expires)
	return ctrl.Result{}, nil
}

// plan says whether the time has come to delete the key, as far as the clock may be believed.
func (r *Reconciler) plan(key *v1alpha1.ApiKey, clock lifecycle.Clock) (lifecycle.Step, error) {
	known, err := facts.Of(key, r.TTLAfterExpired)
	if err != nil {
		// The schema refuses such a spec: trying again can't help.
		return lifecycle.Step{}, reconcile.TerminalError(err)
	}
	return lifecycle.Plan(known, lifecycle.Verdict{Clock: clock}, r.Clock.Now()), nil
}

// later looks at the key again when its plan says so.
func (r *Reconciler) later(plan lifecycle.Step) ctrl.Result {
	return ctrl.Result{RequeueAfter: plan.Again.Wait(r.Clock.Now())}
}
