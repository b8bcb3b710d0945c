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

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/controllers/timeline"
	"github.com/apikey-operator/apikey-operator/internal/policy"
)

// ErrUnread says that the roles, policies and namespaces have not all been read yet, or may not be. What has not been read is
// not empty: nothing can be judged.
var ErrUnread = errors.New("the cluster's ApiRoles, ApiKeyPolicies and namespaces have not been read")

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
	synced  []func() bool
	// told are told of changes: of the labels of a namespace, or of everything, which is "".
	told []func(namespace string)

	mu    sync.Mutex
	rules *policy.Rules // nil until compiled, and after a change
}

// NewLive returns a book that reads anew whenever it is asked.
func NewLive(reader client.Reader, options Options) *Book {
	return &Book{Reader: reader, options: options}
}

// New returns a book that a manager keeps up to date, on a replica that waits for its turn too. Its cache is one of its own: where a
// kind may not be read, or is not served, nothing is issued, but keys still expire.
func New(ctx context.Context, mgr ctrl.Manager, options Options) (*Book, error) {
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
	b := &Book{Reader: shared, options: options}
	for _, kind := range []client.Object{&v1alpha1.ApiRole{}, &v1alpha1.ApiKeyPolicy{}, namespaceMeta()} {
		informer, err := shared.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", kind, err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { b.changed(object) },
			DeleteFunc: func(object any) { b.changed(object) },
			UpdateFunc: func(before, after any) {
				if matters(before, after) {
					b.changed(after)
				}
			},
		})
		if err != nil {
			return nil, err
		}
		b.synced = append(b.synced, registration.HasSynced)
	}
	return b, nil
}

// Subscribe has a function called after each change, with the namespace whose labels changed, or "" for a role or a policy. The
// function must be quick. Subscribe before the manager starts.
func (b *Book) Subscribe(f func(namespace string)) { b.told = append(b.told, f) }

// Synced tells whether everything has been read once.
func (b *Book) Synced() bool {
	for _, synced := range b.synced {
		if !synced() {
			return false
		}
	}
	return true
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
func (b *Book) Rules(ctx context.Context) (*policy.Rules, error) {
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
	if len(b.synced) > 0 { // else nobody tells when it is out of date
		b.rules = rules
	}
	return rules, nil
}

// Judge asks the rules about a key. An error means that there is no verdict, and so no licence.
func (b *Book) Judge(ctx context.Context, key *v1alpha1.ApiKey, now time.Time) (policy.Verdict, error) {
	rules, err := b.Rules(ctx)
	if err != nil {
		return policy.Verdict{}, err
	}
	if rules.AllowAll() {
		return policy.Verdict{Outcome: policy.Allowed}, nil
	}
	request, err := ask(key, now)
	if err != nil {
		return policy.Verdict{}, err
	}
	if rules.AskNamespace() {
		namespace := namespaceMeta()
		if err := b.Reader.Get(ctx, client.ObjectKey{Name: key.Namespace}, namespace); err != nil {
			// Not there yet, or not any more: no labels can be told from that.
			return policy.Verdict{}, fmt.Errorf("labels of the key's namespace: %w", err)
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
func ask(key *v1alpha1.ApiKey, now time.Time) (policy.Request, error) {
	spec := key.Spec
	request := policy.Request{Namespace: key.Namespace, Roles: spec.Roles, CIDRs: spec.CIDRs}
	life, err := timeline.Life(key, now)
	if err != nil {
		return request, err
	}
	request.Never, request.Lifetime = life.Never, life.Length
	if spec.Expiry.At != "" {
		request.Expiry = "at: " + spec.Expiry.At
		request.Shrinks = key.Status.IssuedAt == nil
	} else {
		request.Expiry = "after: " + string(spec.Expiry.After)
	}
	return request, nil
}
