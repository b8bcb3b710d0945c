// Package recording records when keys were last used: it merges the ApiKeyUsages of verifiers and writes status.lastUsedAt of
// ApiKeys. It must not write any other field of a status, and must not touch Secrets.
package recording

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/usage"
)

const (
	// DefaultWrites is the largest number of writes a second.
	DefaultWrites = 5

	// lifetime is how long a report without a pod is kept after it was last written.
	lifetime = time.Hour

	// A report may speak of a key before this operator's watch does. For unseenPatience after it was written, it is read again
	// every unseenInterval.
	unseenPatience = time.Minute
	unseenInterval = 5 * time.Second
)

// Reconciler merges one report at a time. All exported fields are required, except for Namespace.
type Reconciler struct {
	// Client reads ApiKeys from the cache, writes their status and deletes ApiKeyUsages.
	Client client.Client
	// Namespace is the namespace of the operator. Reports there speak of all keys, other reports only of keys in their own
	// namespace.
	Namespace string
	// Clock gives the current time. Skew returns that time minus the API server's.
	Clock clock.PassiveClock
	Skew  func(context.Context) (time.Duration, error)
	// Precision is how old the recorded use of a key may become before a later one is recorded.
	Precision time.Duration
	// Writes is the largest number of writes a second.
	Writes float64
	// Metrics counts the writes.
	Metrics *Metrics

	reports client.Reader
	names   names
	ledger  usage.Ledger
	wake    chan struct{} // signals that the ledger may have changed
	budget  *rate.Limiter
	failing bool
}

// Options say how the reconciler runs on a manager.
type Options struct {
	// Namespaces are the namespaces of the keys; if empty, all namespaces.
	Namespaces []string
}

// SetupWithManager adds the reconciler to a manager. It has a cache of its own, so that the operator works without the kind
// ApiKeyUsage, or without the permission to read it.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, o Options) error {
	r.wake, r.budget = make(chan struct{}, 1), rate.NewLimiter(rate.Limit(r.Writes), 1)
	r.Metrics.watch(&r.ledger, r.Clock)
	options := cache.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()}
	if len(o.Namespaces) > 0 {
		options.DefaultNamespaces = map[string]cache.Config{}
		for _, namespace := range o.Namespaces {
			options.DefaultNamespaces[namespace] = cache.Config{}
		}
		if r.Namespace != "" {
			options.DefaultNamespaces[r.Namespace] = cache.Config{}
		}
	}
	reports, err := cache.New(mgr.GetConfig(), options)
	if err != nil {
		return fmt.Errorf("create a cache of ApiKeyUsages: %w", err)
	}
	r.reports = reports
	if err := mgr.Add(reports); err != nil {
		return err
	}
	named, err := r.names.follow(context.Background(), mgr.GetCache())
	if err != nil {
		return err
	}
	if err := mgr.Add(writer{r}); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("recording").
		WatchesRawSource(source{reports, named}).
		Complete(r)
}

// Reconcile merges a report into the ledger, from which its uses are recorded. It deletes a report that belongs to no pod and was
// not written for an hour.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	report := &v1alpha1.ApiKeyUsage{}
	if err := r.reports.Get(ctx, req.NamespacedName, report); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	unseen, err := r.merge(ctx, report)
	if err != nil {
		return ctrl.Result{}, err
	}
	age := r.Clock.Since(report.ReportedAt())
	switch {
	case unseen && age < unseenPatience:
		return ctrl.Result{RequeueAfter: unseenInterval}, nil
	case report.HasPod():
		return ctrl.Result{}, nil
	case age < lifetime:
		return ctrl.Result{RequeueAfter: lifetime - age}, nil
	}
	err = r.Client.Delete(ctx, report, client.Preconditions{UID: &report.UID, ResourceVersion: &report.ResourceVersion})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{}, err
}

// merge adds the uses of a report that must be recorded to the ledger. unseen reports whether it speaks of a key that the cache
// does not have.
func (r *Reconciler) merge(ctx context.Context, report *v1alpha1.ApiKeyUsage) (unseen bool, err error) {
	now, reported := r.Clock.Now(), report.ReportedAt()
	for _, use := range report.Uses {
		key := &v1alpha1.ApiKey{}
		name, found := r.names.find(types.UID(use.UID))
		if found {
			err := r.Client.Get(ctx, name, key, client.UnsafeDisableDeepCopy)
			if client.IgnoreNotFound(err) != nil {
				return false, fmt.Errorf("read the ApiKey with UID %q: %w", use.UID, err)
			}
			found = err == nil && string(key.UID) == use.UID
		}
		if !found {
			unseen = true
			continue
		}
		if report.Namespace != r.Namespace && report.Namespace != key.Namespace {
			continue
		}
		at := reported
		if use.Age != nil {
			at = at.Add(-time.Duration(*use.Age) * time.Second)
		}
		waiting := usage.Waiting{Key: usage.Key{Namespace: key.Namespace, Name: key.Name, UID: use.UID}, At: at, Since: now}
		if retiring := key.RetiringToken(); retiring != nil && retiring.Hash == use.Digest {
			waiting.Retiring, waiting.RetiringAt = use.Digest, at
		}
		if changes(key, waiting, at, r.Precision) != nil {
			r.ledger.Add(waiting)
		}
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return unseen, nil
}
