// Package counting writes the number of keys that have each role to the status of the ApiRole. It must not write anything
// else.
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

// DefaultDelay is how long changes are gathered before the keys are counted. So the creation of many keys costs one write
// per role, not one per key.
const DefaultDelay = 5 * time.Second

// Reconciler counts the keys of all roles at once, from the cache, because counting those of one role would cost as much.
// All fields are required.
type Reconciler struct {
	// Client reads ApiKeys from the cache, and writes the status of ApiRoles.
	Client client.Client
	// Rules provides the role catalogue.
	Rules *rulebook.Book
	// Delay is how long changes are gathered.
	Delay time.Duration
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// all is the only request: it stands for the whole catalogue, so that any number of changes cause one reconcile.
var all = reconcile.Request{NamespacedName: client.ObjectKey{Name: "all"}}

// SetupWithManager adds the reconciler to a manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	changed := make(chan struct{}, 1)
	r.Rules.Subscribe(func(namespace string) {
		if namespace == "" {
			select {
			case changed <- struct{}{}:
			default: // a change is already pending
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

// rolesChanged is a source.Source that enqueues all after changes of the catalogue.
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

// carries reports whether a key is counted: it has neither expired nor been deleted.
func carries(object client.Object) bool {
	key, ok := object.(*v1alpha1.ApiKey)
	return ok && facts.State(key).Alive()
}

// Reconcile counts the keys of every role, and writes the counts that have changed.
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
			errs = append(errs, fmt.Errorf("write status of ApiRole %q: %w", role.Name, err))
		}
	}
	return ctrl.Result{}, errors.Join(errs...)
}
