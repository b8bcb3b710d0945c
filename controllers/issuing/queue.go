package issuing

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
)

const (
	// Keys that can't be issued unless somebody acts are looked at after all others have been served, or one tenant's flood of them
	// would hold up everybody. It is below what controller-runtime gives to the keys that it finds at its start.
	waitingPriority = handler.LowPriority - 1

	// Keys that are out come as early as new ones, whatever they were found by.
	duePriority = 0

	// Changes of roles and policies are gathered for this long, as those of one kubectl apply come one after the other.
	sweepInterval = 200 * time.Millisecond

	// Keys are not looked at for this long after the start, if the rules have not been read: mostly it takes milliseconds, and a
	// write a key is saved.
	readPatience = 10 * time.Second
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// keyEvents enqueues a key when it appears, and when what its status says about roles and policies turns out to be late: a pass that was
// under way while they changed may have written an answer that no longer holds.
//
// Keys that are found at the start wait for the rules, which their priority depends on.
func (r *Reconciler) keyEvents(read <-chan struct{}) handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			select {
			case <-ctx.Done():
			case <-read:
				r.enqueue(ctx, e.Object, q)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			if appeared(e) {
				r.enqueue(ctx, e.ObjectNew, q)
			} else if key, ok := e.ObjectNew.(*v1alpha1.ApiKey); ok && r.needsPass(ctx, key) {
				r.add(ctx, q, handler.LowPriority, key)
			}
		},
	}
}

func (r *Reconciler) enqueue(ctx context.Context, object client.Object, q queue) {
	key, ok := object.(*v1alpha1.ApiKey)
	switch {
	case ok && r.mustWait(ctx, key):
		r.add(ctx, q, waitingPriority, key)
	case ok && r.overdue(key):
		r.add(ctx, q, duePriority, key)
	default:
		q.Add(requestFor(object)) // at the priority that controller-runtime gives to it
	}
}

// overdue tells whether a key must be expired, or its Secret withdrawn.
func (r *Reconciler) overdue(key *v1alpha1.ApiKey) bool {
	known, err := facts.Of(key, r.TTLAfterExpired)
	if err != nil {
		return false
	}
	due := lifecycle.Plan(known, lifecycle.Verdict{}, r.Clock.Now()).Due
	return due == lifecycle.AtDeadline || due == lifecycle.AtWithdrawal
}

// priority is that at which a key is looked at again; nil leaves it as it was.
func priority(key *v1alpha1.ApiKey) *int {
	switch facts.State(key).Urgency() {
	case lifecycle.AfterOthers:
		return ptr.To(waitingPriority)
	case lifecycle.Prompt:
		return ptr.To(duePriority)
	default:
		return nil
	}
}

// add enqueues a key at a priority, or at that of one that waits. The queue keeps the highest that it was ever given.
func (r *Reconciler) add(ctx context.Context, q queue, priority int, key *v1alpha1.ApiKey) {
	prioritised, ok := q.(priorityqueue.PriorityQueue[reconcile.Request])
	if !ok {
		q.Add(requestFor(key))
		return
	}
	if r.mustWait(ctx, key) {
		priority = waitingPriority
	}
	prioritised.AddWithOpts(priorityqueue.AddOpts{Priority: ptr.To(priority)}, requestFor(key))
}

func requestFor(object client.Object) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)}
}

// appeared tells what somebody else wrote from what this controller wrote itself, which is the status. Of a spec, spec.suspend can change. A
// key that was replaced while the watch was interrupted comes as an update, with another UID and the same generation.
func appeared(e event.UpdateEvent) bool {
	return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() || e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration()
}

// sweeper judges all keys in memory whenever roles, policies or the labels of a namespace have changed, and enqueues those for which
// that changes anything. So a change costs requests for those alone, however many wait.
type sweeper struct {
	reconciler *Reconciler
	// wake holds at most one token: something has changed.
	wake chan struct{}
	// read is closed when the rules have been read, or are not waited for any more: keys expire without them.
	read chan struct{}

	mu         sync.Mutex
	everywhere bool
	namespaces map[string]bool
}

func newSweeper(r *Reconciler) *sweeper {
	w := &sweeper{reconciler: r, wake: make(chan struct{}, 1), read: make(chan struct{}), namespaces: map[string]bool{}}
	r.Rules.Subscribe(w.note)
	return w
}

// note marks the keys of a namespace, or all of them, as to be judged.
func (w *sweeper) note(namespace string) {
	w.mu.Lock()
	if namespace == "" {
		w.everywhere = true
	} else {
		w.namespaces[namespace] = true
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Start implements source.Source.
func (w *sweeper) Start(ctx context.Context, q queue) error {
	w.note("") // what an earlier operator told may be late
	go w.awaitRules(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(sweepInterval):
			}
			if err := w.sweep(ctx, q); err != nil {
				log.FromContext(ctx).Error(err, "judge keys after a change of roles or policies; tried again")
				w.note("")
			}
		}
	}()
	return nil
}

// WaitForSync implements source.SyncingSource: the workers wait for the rules.
func (w *sweeper) WaitForSync(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.read:
		return nil
	}
}

func (w *sweeper) awaitRules(ctx context.Context) {
	defer close(w.read)
	patience := time.NewTimer(readPatience)
	defer patience.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !w.reconciler.Rules.Synced() {
		select {
		case <-ctx.Done():
			return
		case <-patience.C:
			log.FromContext(ctx).Info("not all of the cluster's ApiRoles, ApiKeyPolicies and namespaces have been read: keys expire, but none is issued",
				"unread", w.reconciler.Rules.Unread())
			return
		case <-look.C:
		}
	}
}

func (w *sweeper) sweep(ctx context.Context, q queue) error {
	if !w.reconciler.Rules.Synced() {
		w.note("") // looked at again at the next interval
		return nil
	}
	w.mu.Lock()
	namespaces := w.namespaces
	if w.everywhere {
		namespaces = map[string]bool{"": true}
	}
	w.everywhere, w.namespaces = false, map[string]bool{}
	w.mu.Unlock()
	for namespace := range namespaces {
		keys := &v1alpha1.ApiKeyList{}
		if err := w.reconciler.Client.List(ctx, keys, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return err
		}
		for i := range keys.Items {
			if w.reconciler.needsPass(ctx, &keys.Items[i]) {
				w.reconciler.add(ctx, q, handler.LowPriority, &keys.Items[i])
			}
		}
	}
	return nil
}
