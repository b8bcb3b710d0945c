// Package counting writes into the status of each ApiRole how many keys carry it, and nothing else.
package counting

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
)

// DefaultDelay is how long changes are gathered before the keys are counted: a thousand new keys cost a write a role each time, and
// not a write each.
const DefaultDelay = 5 * time.Second

// Reconciler counts all keys at once, from the cache; a count of one role would cost as much. All fields are required.
type Reconciler struct {
	// Client reads ApiKeys from the cache, and writes the status of ApiRoles.
	Client client.Client
	// Rules are the catalogue.
	Rules *rulebook.Book
	// Delay is how long changes are gathered.
	Delay time.Duration
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// all stands for the whole catalogue, so that any number of changes make one pass.
var all = reconcile.Request{NamespacedName: client.ObjectKey{Name: "all"}}

// SetupWithManager registers the reconciler with a manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	changed := make(chan struct{}, 1)
	r.Rules.Subscribe(func(namespace string) {
		if namespace == "" {
			select {
			case changed <- struct{}{}:
			default: // one is waiting
			}
		}
	})
	later := func(q queue) { q.AddAfter(all, r.Delay) }
	return ctrl.NewControllerManagedBy(mgr).
		Named("counting").
		Watches(&v1alpha1.ApiKey{}, handler.Funcs{
			CreateFunc: func(_ context.Context, _ event.CreateEvent, q queue) { later(q) },
			DeleteFunc: func(_ context.Context, _ event.DeleteEvent, q queue) { later(q) },
			UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
				if carries(e.ObjectOld) != carries(e.ObjectNew) {
					later(q)
				}
			},
		}).
		WatchesRawSource(rolesChanged{changed, later}).
		Complete(r)
}

// rolesChanged is a source.Source of changes of the catalogue.
type rolesChanged struct {
	changed <-chan struct{}
	later   func(queue)
}

// Start implements source.Source.
func (s rolesChanged) Start(ctx context.Context, q queue) error {
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.changed:
				s.later(q)
			}
		}
	}()
	return nil
}

// carries tells whether a key counts: one that has expired, or is being deleted, carries nothing.
func carries(object client.Object) bool {
	key, ok := object.(*v1alpha1.ApiKey)
	return ok && facts.State(key).Alive()
}

// Reconcile counts the keys of every role, and writes those counts that have changed.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	rules, err := r.Rules.Rules(ctx)
	if errors.Is(err, rulebook.ErrUnread) {
		return ctrl.Result{RequeueAfter: r.Delay}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	if rules.Catalogue.Empty() {
		return ctrl.Result{}, nil
	}
	keys, roles := &v1alpha1.ApiKeyList{}, &v1alpha1.ApiRoleList{}
	if err := r.Client.List(ctx, keys, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list ApiKeys: %w", err)
	}
	if err := r.Rules.Reader.List(ctx, roles); err != nil {
		return ctrl.Result{}, fmt.Errorf("list ApiRoles: %w", err)
	}
	counts := map[string]int32{}
	for i := range keys.Items {
		if carries(&keys.Items[i]) {
			for _, role := range rules.Catalogue.Closure(keys.Items[i].Spec.Roles) {
				counts[role]++
			}
		}
	}
	var errs []error
	for i := range roles.Items {
		role := &roles.Items[i]
		if role.Status.Keys != nil && *role.Status.Keys == counts[role.Name] {
			continue
		}
		before := role.DeepCopy()
		role.Status.Keys = ptr.To(counts[role.Name])
		if err := r.Client.Status().Patch(ctx, role, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("write the count of ApiRole %q: %w", role.Name, err))
		}
	}
	return ctrl.Result{}, errors.Join(errs...)
}
