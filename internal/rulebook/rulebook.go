// Package rulebook loads the roles, policies and namespaces of the cluster, and judges ApiKeys by them. It must not write
// anything.
package rulebook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/grant"
)

// ErrUnread says that roles, policies and namespaces are not all loaded yet, or that the operator may not read them. No key
// can be judged then: data that is not loaded does not count as empty.
var ErrUnread = errors.New("ApiRoles, ApiKeyPolicies and namespaces are not loaded")

// kindInterval is the time between attempts to watch a kind. An attempt costs one or two requests.
const kindInterval = 2 * time.Second

// Options are the options of a [Book]. With the zero value it covers all namespaces, and an empty catalogue and a cluster
// without policies allow every key.
type Options struct {
	// RequireCatalogue refuses every key if there is no ApiRole, and RequirePolicy if there is no ApiKeyPolicy.
	RequireCatalogue, RequirePolicy bool
	// Namespaces are the namespaces of the keys; if empty, all namespaces. Subscribers get no changes of other namespaces.
	Namespaces []string
}

// Book judges ApiKeys by the rules of the cluster. It is safe for concurrent use.
type Book struct {
	// Reader reads ApiRoles, ApiKeyPolicies and the metadata of namespaces. Call [Book.Synced] first.
	Reader client.Reader

	options Options
	// awaited are the kinds that are cached. It is empty if every call reads from the API server.
	awaited []*kind
	// told are the subscribers. They are called with a namespace whose labels changed, or with "" for all namespaces.
	told []func(namespace string)

	mu    sync.Mutex
	rules *grant.Rules // nil until compiled, and after a change
}

// NewLive returns a book that reads from reader on every call.
func NewLive(reader client.Reader, options Options) *Book {
	return &Book{Reader: reader, options: options}
}

// kind is one of the three kinds that a book reads.
type kind struct {
	plural string
	object client.Object

	mu     sync.Mutex
	synced func() bool // nil until it is watched
	// problem says why the kind is not watched, or is nil.
	problem error
}

// New returns a book that a manager keeps up to date, also on replicas that are not the leader. It has a cache of its own,
// so that keys still expire if a kind may not be read or is not served. The book loads such a kind as soon as it becomes
// available; no key is issued until then.
func New(mgr ctrl.Manager, options Options) (*Book, error) {
	shared, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		DefaultTransform: trim,
	})
	if err != nil {
		return nil, fmt.Errorf("create a cache of roles and policies: %w", err)
	}
	if err := mgr.Add(shared); err != nil {
		return nil, err
	}
	b := &Book{Reader: shared, options: options, awaited: []*kind{
		{plural: "ApiRoles", object: &v1alpha1.ApiRole{}},
		{plural: "ApiKeyPolicies", object: &v1alpha1.ApiKeyPolicy{}},
		{plural: "namespaces", object: namespaceMeta()},
	}}
	for _, k := range b.awaited {
		if err := mgr.Add(&watching{b, shared, k}); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// watching is a runnable that watches a kind as soon as the API server serves it.
type watching struct {
	book   *Book
	shared cache.Cache
	kind   *kind
}

// NeedLeaderElection implements manager.LeaderElectionRunnable. Replicas that are not the leader load the rules too.
func (w *watching) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable. It returns once the kind is watched; its objects are loaded later. It retries if the
// kind is not served or the API server does not respond, because issued keys must expire in the meantime.
func (w *watching) Start(ctx context.Context) error {
	logger := log.FromContext(ctx).WithValues("kind", w.kind.plural)
	for {
		err := w.watch(ctx)
		if err == nil {
			if w.kind.failed(nil) {
				logger.Info("Loading the kind, which is available now")
			}
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		if !w.kind.failed(err) {
			logger.Error(err, "Failed to watch a kind that decides which keys may be issued, retrying: keys expire, but none is issued; "+
				"check that config/crd is applied")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(kindInterval):
		}
	}
}

func (w *watching) watch(ctx context.Context) error {
	informer, err := w.shared.GetInformer(ctx, w.kind.object, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { w.book.changed(object) },
		DeleteFunc: func(object any) { w.book.changed(object) },
		UpdateFunc: func(before, after any) {
			if matters(before, after) {
				w.book.changed(after)
			}
		},
	})
	if err != nil {
		return err
	}
	w.kind.mu.Lock()
	defer w.kind.mu.Unlock()
	w.kind.synced = registration.HasSynced
	return nil
}

// failed records why the kind is not watched, or nil, and reports whether an earlier attempt failed.
func (k *kind) failed(problem error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.problem != nil
	k.problem = problem
	return before
}

// unread says why the kind is not loaded, or returns nil if it is.
func (k *kind) unread() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.problem != nil:
		return fmt.Errorf("%s: %w", k.plural, k.problem)
	case k.synced == nil || !k.synced():
		return fmt.Errorf("%s: not loaded yet, or not allowed to be read", k.plural)
	}
	return nil
}

// Subscribe registers a function that is called after each change, with the namespace whose labels changed, or "" if a role
// or a policy changed. The function must not block. Subscribe must be called before the manager starts.
func (b *Book) Subscribe(f func(namespace string)) { b.told = append(b.told, f) }

// Synced reports whether everything is loaded.
func (b *Book) Synced() bool { return len(b.Unread()) == 0 }

// Unread returns the plural names of the kinds that are not loaded, such as ApiRoles.
func (b *Book) Unread() []string {
	var plurals []string
	for _, k := range b.awaited {
		if k.unread() != nil {
			plurals = append(plurals, k.plural)
		}
	}
	return plurals
}

// Ready returns nil once everything is loaded. Otherwise it returns an error that wraps [ErrUnread] and says what is missing
// and why.
func (b *Book) Ready() error {
	var problems []error
	for _, k := range b.awaited {
		if err := k.unread(); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnread, errors.Join(problems...))
}

// matters reports whether an update changes the rules. A count in the status of a role does not.
func matters(before, after any) bool {
	then, ok := before.(client.Object)
	now, okNow := after.(client.Object)
	if !ok || !okNow {
		return true
	}
	if _, isNamespace := after.(*metav1.PartialObjectMetadata); isNamespace {
		return !maps.Equal(then.GetLabels(), now.GetLabels())
	}
	return then.GetUID() != now.GetUID() || then.GetGeneration() != now.GetGeneration()
}

func (b *Book) changed(object any) {
	if tombstone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	namespace := ""
	if meta, ok := object.(*metav1.PartialObjectMetadata); ok {
		namespace = meta.Name
		if len(b.options.Namespaces) > 0 && !slices.Contains(b.options.Namespaces, namespace) {
			return
		}
	} else {
		b.mu.Lock()
		b.rules = nil
		b.mu.Unlock()
	}
	for _, tell := range b.told {
		tell(namespace)
	}
}

// Rules returns the current rules. They are compiled once after each change.
func (b *Book) Rules(ctx context.Context) (*grant.Rules, error) {
	if !b.Synced() {
		return nil, ErrUnread
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rules != nil {
		return b.rules, nil
	}
	roles, policies := &v1alpha1.ApiRoleList{}, &v1alpha1.ApiKeyPolicyList{}
	if err := b.Reader.List(ctx, roles, client.UnsafeDisableDeepCopy); err != nil {
		return nil, errors.Join(ErrUnread, err)
	}
	if err := b.Reader.List(ctx, policies, client.UnsafeDisableDeepCopy); err != nil {
		return nil, errors.Join(ErrUnread, err)
	}
	rules := compile(roles.Items, policies.Items, b.options)
	if len(b.awaited) > 0 { // otherwise no event says that they are outdated
		b.rules = rules
	}
	return rules, nil
}

// Judge judges a key. An error means that there is no verdict, so the key must not be issued.
func (b *Book) Judge(ctx context.Context, key *v1alpha1.ApiKey, now time.Time) (grant.Verdict, error) {
	rules, err := b.Rules(ctx)
	if err != nil {
		return grant.Verdict{}, err
	}
	if rules.AllowAll() {
		return grant.Verdict{Outcome: grant.Allowed}, nil
	}
	request, err := ask(key, now)
	if err != nil {
		return grant.Verdict{}, err
	}
	if rules.AskNamespace() {
		namespace := namespaceMeta()
		if err := b.Reader.Get(ctx, client.ObjectKey{Name: key.Namespace}, namespace); err != nil {
			// The namespace is not in the cache yet, or no longer in it, so its labels are unknown.
			return grant.Verdict{}, fmt.Errorf("read the labels of the key's namespace: %w", err)
		}
		request.Labels = namespace.Labels
	}
	return rules.Judge(request), nil
}

func namespaceMeta() *metav1.PartialObjectMetadata {
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return meta
}

// ask returns what a key requests. The lifetime of an issued key is the one it had at issue.
func ask(key *v1alpha1.ApiKey, now time.Time) (grant.Request, error) {
	spec := key.Spec
	request := grant.Request{Namespace: key.Namespace, Roles: spec.Roles, CIDRs: spec.CIDRs, Attributes: key.Attributes()}
	life, err := facts.Life(key, now)
	if err != nil {
		return request, err
	}
	request.Never, request.Lifetime = life.Never, life.Length
	if spec.Expiry.At != "" {
		request.Expiry = "at: " + spec.Expiry.At
		request.Shrinks = !key.IsIssued()
	} else {
		request.Expiry = "after: " + string(spec.Expiry.After)
	}
	return request, nil
}
