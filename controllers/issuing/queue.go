package issuing

import (
	"context"
	"slices"
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
	// waitingPriority is for keys that can't be issued unless somebody acts. They come after all others, so that many of them in
	// one namespace do not hold up other tenants. It is lower than the priority of keys that controller-runtime finds at startup.
	waitingPriority = handler.LowPriority - 1

	// duePriority is for issued keys. It is the priority of new keys, even for keys that are found at startup.
	duePriority = 0

	// sweepInterval is how long changes of roles and policies are gathered: those of one kubectl apply arrive one by one.
	sweepInterval = 200 * time.Millisecond

	// readPatience is how long the workers wait at startup until the rules are loaded. That usually takes milliseconds, and
	// saves a status write for each key.
	readPatience = 10 * time.Second
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// keyEvents enqueues a key when it appears, and when its status turns out to be outdated about roles and policies: a pass
// that was running while they changed may have written an outdated answer.
//
// Keys that are found at startup wait until read is closed, because their priority depends on the rules.
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
		q.Add(requestFor(object)) // with the priority that controller-runtime chooses
	}
}

// overdue reports whether a token must be ended now: the key marked as expired, its retiring token removed, or its Secret deleted.
func (r *Reconciler) overdue(key *v1alpha1.ApiKey) bool {
	known, err := facts.Of(key, r.TTLAfterExpired)
	if err != nil {
		return false
	}
	due := lifecycle.Plan(known, lifecycle.Verdict{}, r.Clock.Now()).Due
	return due == lifecycle.AtDeadline || due == lifecycle.AtRetirement || due == lifecycle.AtWithdrawal
}

// priority returns the priority with which a key is requeued; nil keeps its current priority.
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

// add enqueues a key with a priority, or with waitingPriority if it must wait. A key that is already in the queue keeps the
// higher priority.
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

// appeared reports whether an update is more than a status write of this controller: the UID, the generation or a request in an
// annotation differs. A key that was replaced while the watch was interrupted arrives as an update with another UID and the same
// generation.
func appeared(e event.UpdateEvent) bool {
	before, now := e.ObjectOld, e.ObjectNew
	return before.GetUID() != now.GetUID() || before.GetGeneration() != now.GetGeneration() ||
		slices.ContainsFunc([]string{v1alpha1.AnnotationRotate, v1alpha1.AnnotationRetire}, func(name string) bool {
			return before.GetAnnotations()[name] != now.GetAnnotations()[name]
		})
}

// sweeper judges all keys in memory whenever roles, policies or the labels of a namespace change, and enqueues the keys
// whose status changes. So a change costs requests only for those keys, however many are pending.
type sweeper struct {
	reconciler *Reconciler
	// wake signals that something has changed. Its capacity is 1.
	wake chan struct{}
	// read is closed when the rules have been loaded, or after readPatience: keys must expire without them.
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

// note marks the keys of a namespace to be judged, or those of all namespaces if namespace is empty.
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
	w.note("") // what an earlier operator wrote may be outdated
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
				log.FromContext(ctx).Error(err, "Failed to judge keys after a change of roles or policies, retrying")
				w.note("")
			}
		}
	}()
	return nil
}

// WaitForSync implements source.SyncingSource. The workers start once the rules are loaded.
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
			log.FromContext(ctx).Info("Starting before ApiRoles, ApiKeyPolicies and namespaces are loaded: keys expire, but none is issued",
				"unread", w.reconciler.Rules.Unread())
			return
		case <-look.C:
		}
	}
}

func (w *sweeper) sweep(ctx context.Context, q queue) error {
	if !w.reconciler.Rules.Synced() {
		w.note("") // try again after the next interval
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
