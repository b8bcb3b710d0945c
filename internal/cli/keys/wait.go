package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// ErrDeleted says that a key was deleted, or replaced by another one of its name, while somebody waited for it.
var ErrDeleted = errors.New("the ApiKey was deleted meanwhile")

// ErrExpired says that a key expired before it was issued.
var ErrExpired = errors.New("the ApiKey expired before it was issued")

// TimeoutError says that time ran out before a key was as expected.
type TimeoutError struct {
	// Key is the key as it was last seen, or nil if it was never seen.
	Key *v1alpha1.ApiKey
	// Cause is the last failure of the API server, or nil.
	Cause error
}

// Error says what the key waits for.
func (e *TimeoutError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("timed out; the API server can't be asked: %v", e.Cause)
	}
	return "timed out; " + WaitsFor(e.Key)
}

// Unwrap returns the cause.
func (e *TimeoutError) Unwrap() error { return e.Cause }

// WaitsFor says in words what a key waits for that is not issued yet.
func WaitsFor(key *v1alpha1.ApiKey) string {
	if key == nil {
		return "the ApiKey was not seen"
	}
	ready := key.Condition(v1alpha1.ConditionReady)
	if ready == nil {
		return "no operator has looked at the ApiKey yet: check that apikey-operator runs, and that it covers this namespace"
	}
	return fmt.Sprintf("the ApiKey is %s: %s", ready.Reason, ready.Message)
}

// AwaitIssued waits until a key is issued, and returns it as it is then. seen is called with each change of the key. The error is a
// [*TimeoutError] if ctx ends first, [ErrDeleted] or [ErrExpired].
func (c *Cluster) AwaitIssued(ctx context.Context, key *v1alpha1.ApiKey, seen func(*v1alpha1.ApiKey)) (*v1alpha1.ApiKey, error) {
	return c.await(ctx, key, seen, func(now *v1alpha1.ApiKey) (bool, error) {
		if now.IsExpired() {
			return false, ErrExpired
		}
		return now.IsReady(), nil
	})
}

// AwaitGone waits until a key is gone, or replaced by another one of its name.
func (c *Cluster) AwaitGone(ctx context.Context, key *v1alpha1.ApiKey) error {
	_, err := c.await(ctx, key, func(*v1alpha1.ApiKey) {}, func(*v1alpha1.ApiKey) (bool, error) { return false, nil })
	if errors.Is(err, ErrDeleted) {
		return nil
	}
	return err
}

// await follows a key until done returns true or an error.
func (c *Cluster) await(
	ctx context.Context, key *v1alpha1.ApiKey, seen func(*v1alpha1.ApiKey), done func(*v1alpha1.ApiKey) (bool, error),
) (*v1alpha1.ApiKey, error) {
	source := &keySource{cluster: c, namespace: key.Namespace, name: key.Name}
	var last *v1alpha1.ApiKey
	look := func(object runtime.Object) (bool, error) {
		now, ok := object.(*v1alpha1.ApiKey)
		if !ok || now.UID != key.UID {
			return false, ErrDeleted
		}
		last = withKind(now.DeepCopy())
		seen(last)
		return done(last)
	}
	gone := func(store cache.Store) (bool, error) {
		if len(store.ListKeys()) == 0 {
			return false, ErrDeleted
		}
		return false, nil
	}
	_, err := watchtools.UntilWithSync(ctx, source, &v1alpha1.ApiKey{}, gone, func(event watch.Event) (bool, error) {
		if event.Type == watch.Deleted {
			return false, ErrDeleted
		}
		return look(event.Object)
	})
	if ctx.Err() != nil && !errors.Is(err, ErrDeleted) {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return last, &TimeoutError{Key: last, Cause: source.failure()}
		}
		return last, context.Cause(ctx)
	}
	return last, err
}

// keySource lists and watches a single key. It remembers the last failure, which an informer would only log.
type keySource struct {
	cluster         *Cluster
	namespace, name string

	mu     sync.Mutex
	failed error
}

func (s *keySource) options(o *metav1.ListOptions) []client.ListOption {
	o.FieldSelector = fields.OneTermEqualSelector("metadata.name", s.name).String()
	return []client.ListOption{client.InNamespace(s.namespace), &client.ListOptions{Raw: o}}
}

func (s *keySource) List(o metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), o)
}

func (s *keySource) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list := &v1alpha1.ApiKeyList{}
	return list, s.note(s.cluster.client.List(ctx, list, s.options(&o)...))
}

func (s *keySource) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), o)
}

func (s *keySource) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	w, err := s.cluster.client.Watch(ctx, &v1alpha1.ApiKeyList{}, s.options(&o)...)
	return w, s.note(err)
}

func (s *keySource) note(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	return err
}

func (s *keySource) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.failed, context.DeadlineExceeded) {
		return nil
	}
	return s.failed
}

// Delete deletes a key, unless it was replaced by another one of its name since. It is not an error if the key is gone.
func (c *Cluster) Delete(ctx context.Context, key *v1alpha1.ApiKey) error {
	err := c.client.Delete(ctx, key, client.Preconditions{UID: &key.UID})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// SetSuspended suspends a key, or resumes it, and returns it as it is then. It fails if the key was replaced since.
func (c *Cluster) SetSuspended(ctx context.Context, key *v1alpha1.ApiKey, suspended bool) (*v1alpha1.ApiKey, error) {
	value := "null"
	if suspended {
		value = "true"
	}
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"spec":{"suspend":%s}}`, key.UID, value)
	changed := key.DeepCopy()
	err := c.client.Patch(ctx, changed, client.RawPatch(types.MergePatchType, patch))
	return withKind(changed), err
}

// Timeout is how long a verb waits by default.
const Timeout = time.Minute
