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
	"github.com/apikey-operator/apikey-operator/controllers/timeline"
	"github.com/apikey-operator/apikey-operator/internal/clockskew"
)

const (
	// Somebody changed the key between our look and our delete: look again soon.
	staleDelay = 250 * time.Millisecond
	// A timer that was set by a wrong clock must not be trusted for long.
	maxWait = 10 * time.Minute
	// While nothing may be deleted for the clock's sake, look at it this often.
	skewDelay = time.Minute
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
		Namespace: "apikey_operator", Name: "deleted_total",
		Help: "Expired ApiKeys that were deleted once their ttlAfterExpired had passed.",
	})
	registry.MustRegister(deleted)
	return deleted
}

// SetupWithManager registers the reconciler with a manager, at the given number of workers.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, workers int) error {
	expired := predicate.NewPredicateFuncs(func(object client.Object) bool {
		key, ok := object.(*v1alpha1.ApiKey)
		return ok && timeline.Expired(key)
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
	wait, err := r.wait(key)
	if err != nil || wait != 0 {
		return ctrl.Result{RequeueAfter: max(wait, 0)}, err
	}

	// Deletion can't be taken back: the cache may be behind (a mark of a GitOps tool, a key of the same name), and so may the
	// machine's clock.
	skew, err := r.Skew(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	if skew.Abs() > clockskew.Tolerance {
		log.FromContext(ctx).Info("not deleting an expired key: this machine's clock and the API server's disagree", "skew", skew.String())
		return ctrl.Result{RequeueAfter: skewDelay}, nil
	}
	// A new object: decoding into the cached one would keep its status where the live key has none.
	live := &v1alpha1.ApiKey{}
	if err := r.Live.Get(ctx, req.NamespacedName, live); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if live.UID != key.UID {
		return ctrl.Result{}, nil // its own event brings the successor here
	}
	if wait, err = r.wait(live); err != nil || wait != 0 {
		return ctrl.Result{RequeueAfter: max(wait, 0)}, err
	}
	err = r.Client.Delete(ctx, live, client.Preconditions{UID: &live.UID, ResourceVersion: &live.ResourceVersion})
	switch {
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, nil
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: staleDelay}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("delete expired ApiKey: %w", err)
	}
	r.Deleted.Inc()
	r.Recorder.Eventf(live, nil, corev1.EventTypeNormal, string(v1alpha1.ReasonCollected), "Delete",
		"deleted, since it expired at %s and its ttlAfterExpired has passed", live.Status.Expires)
	return ctrl.Result{}, nil
}

// never is a wait without an end that time alone could bring.
const never = time.Duration(-1)

// wait is how long until the key must be looked at again: 0 means that it may go now.
func (r *Reconciler) wait(key *v1alpha1.ApiKey) (time.Duration, error) {
	if !key.DeletionTimestamp.IsZero() {
		return never, nil
	}
	collectAt, ok, err := timeline.CollectAt(key, r.TTLAfterExpired)
	if err != nil {
		// The schema refuses such a spec: trying again can't help.
		return never, reconcile.TerminalError(err)
	}
	if !ok {
		return never, nil
	}
	return max(min(collectAt.Sub(r.Clock.Now()), maxWait), 0), nil
}
