// Package rulebook keeps what the cluster's roles, policies and namespaces say, compiled, and asks it about ApiKeys for the
// controllers; it writes nothing.
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

// ErrUnread says that the roles, policies and namespaces have not all been read yet, or may not be. What has not been read is
// not empty: nothing can be judged.
var ErrUnread = errors.New("the cluster's ApiRoles, ApiKeyPolicies and namespaces have not been read")

// A kind that can't be watched is tried again this often. A try costs a request or two.
const kindInterval = 2 * time.Second

// Options of a Book. The zero value answers for every namespace, and lets an empty catalogue and a cluster without a policy allow all.
type Options struct {
	// RequireCatalogue denies every key where there is no ApiRole, RequirePolicy where there is no ApiKeyPolicy.
	RequireCatalogue, RequirePolicy bool
	// Namespaces are those of the keys that are asked about; none means all. Of other namespaces nobody is told.
	Namespaces []string
}

// Book is safe for concurrent use.
type Book struct {
	// Reader reads ApiRoles, ApiKeyPolicies and the metadata of namespaces. Ask Synced before.
	Reader client.Reader

	options Options
	// awaited are the kinds that a manager keeps; none where the book reads anew whenever it is asked.
	awaited []*kind
	// told are told of changes: of the labels of a namespace, or of everything, which is "".
	told []func(namespace string)

	mu    sync.Mutex
	rules *grant.Rules // nil until compiled, and after a change
}

// NewLive returns a book that reads anew whenever it is asked.
func NewLive(reader client.Reader, options Options) *Book {
	return &Book{Reader: reader, options: options}
}

// kind is one of the three that a book is made of.
type kind struct {
	plural string
	object client.Object

	mu     sync.Mutex
	synced func() bool // nil until it is watched
	// problem is why it is not watched.
	problem error
}

// New returns a book that a manager keeps up to date, on a replica that waits for its turn too. Its cache is one of its own: where a
// kind may not be read, or is not served, nothing is issued, but keys still expire. A kind that comes later, or that is allowed later, is
// read then.
func New(mgr ctrl.Manager, options Options) (*Book, error) {
	shared, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		DefaultTransform: trim,
	})
	if err != nil {
		return nil, fmt.Errorf("cache of roles and policies: %w", err)
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

// watching has one kind watched as soon as the API server serves it.
type watching struct {
	book   *Book
	shared cache.Cache
	kind   *kind
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: a replica that waits for its turn reads the rules as well.
func (w *watching) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable. It returns once the kind is watched; its objects come later. That it is not served, or that the API
// server does not answer, is no reason to end: keys that are out must expire meanwhile.
func (w *watching) Start(ctx context.Context) error {
	logger := log.FromContext(ctx).WithValues("kind", w.kind.plural)
	for {
		err := w.watch(ctx)
		if err == nil {
			if w.kind.failed(nil) {
				logger.Info("the kind is there now, and is being read")
			}
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		if !w.kind.failed(err) {
			logger.Error(err, "a kind that says which keys may be issued can't be watched: keys expire, but none is issued until it is there; "+
				"has config/crd been applied?")
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

// failed notes why the kind is not watched, or that it is, and tells whether it had failed before.
func (k *kind) failed(problem error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.problem != nil
	k.problem = problem
	return before
}

// unread is why the kind has not been read; nil if it has.
func (k *kind) unread() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.problem != nil:
		return fmt.Errorf("%s: %w", k.plural, k.problem)
	case k.synced == nil || !k.synced():
		return fmt.Errorf("%s: not loaded, or not allowed to be", k.plural)
	}
	return nil
}

// Subscribe has a function called after each change, with the namespace whose labels changed, or "" for a role or a policy. The
// function must be quick. Subscribe before the manager starts.
func (b *Book) Subscribe(f func(namespace string)) { b.told = append(b.told, f) }

// Synced tells whether everything has been read once.
func (b *Book) Synced() bool { return len(b.Unread()) == 0 }

// Unread names the kinds that have not been read, as people write them.
func (b *Book) Unread() []string {
	var plurals []string
	for _, k := range b.awaited {
		if k.unread() != nil {
			plurals = append(plurals, k.plural)
		}
	}
	return plurals
}

// Ready is nil once everything has been read, or says what has not, and why. The error is ErrUnread.
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

// matters tells whether an update changes what the rules say: a count in a role's status does not.
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

// Rules are those of this moment, compiled once after each change.
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
	if len(b.awaited) > 0 { // else nobody tells when it is out of date
		b.rules = rules
	}
	return rules, nil
}

// Judge asks the rules about a key. An error means that there is no verdict, and so no licence.
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
			// Not there yet, or not any more: no labels can be told from that.
			return grant.Verdict{}, fmt.Errorf("labels of the key's namespace: %w", err)
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

// ask puts what a key asks for into a request. The life of a key that is out is as long as it was when it was issued.
func ask(key *v1alpha1.ApiKey, now time.Time) (grant.Request, error) {
	spec := key.Spec
	request := grant.Request{Namespace: key.Namespace, Roles: spec.Roles, CIDRs: spec.CIDRs}
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
