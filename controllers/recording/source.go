package recording

import (
	"context"
	"time"

	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// kindInterval is the time between two attempts to watch ApiKeyUsages while the API server does not serve the kind.
const kindInterval = 10 * time.Second

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// source is a source.Source that enqueues reports, once the keys have names. The controller does not wait for it, because keys must be
// issued and expire even if the kind is not served or may not be read.
type source struct {
	reports cache.Cache
	named   func() bool
}

// Start implements source.Source.
func (s source) Start(ctx context.Context, q queue) error {
	go s.watch(ctx, q)
	return nil
}

func (s source) watch(ctx context.Context, q queue) {
	if !toolscache.WaitForCacheSync(ctx.Done(), s.named) {
		return
	}
	logger := log.FromContext(ctx)
	for failed := false; ; {
		err := s.subscribe(ctx, q)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !failed {
			logger.Error(err, "Failed to watch ApiKeyUsages, retrying: the last use of keys is not recorded; check that config/crd is applied")
		}
		failed = true
		select {
		case <-ctx.Done():
			return
		case <-time.After(kindInterval):
		}
	}
}

func (s source) subscribe(ctx context.Context, q queue) error {
	informer, err := s.reports.GetInformer(ctx, &v1alpha1.ApiKeyUsage{}, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	enqueue := func(object any) {
		if report, ok := object.(*v1alpha1.ApiKeyUsage); ok {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(report)})
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, report any) { enqueue(report) },
	})
	return err
}
