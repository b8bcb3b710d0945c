package harness

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Watch returns every change to the objects of a kind from now on. The server may end a plain watch at any time (that of a new CRD ends
// within seconds); this one resumes where the last one ended.
func Watch(ctx context.Context, config *rest.Config, list client.ObjectList, options ...client.ListOption) (watch.Interface, error) {
	c, err := client.NewWithWatch(config, client.Options{Scheme: Scheme()})
	if err != nil {
		return nil, err
	}
	if err := c.List(ctx, list, options...); err != nil {
		return nil, err
	}
	return watchtools.NewRetryWatcherWithContext(ctx, list.GetResourceVersion(), watcher{c, list, options})
}

type watcher struct {
	client  client.WithWatch
	list    client.ObjectList
	options []client.ListOption
}

// WatchWithContext implements cache.WatcherWithContext.
func (w watcher) WatchWithContext(ctx context.Context, raw metav1.ListOptions) (watch.Interface, error) {
	return w.client.Watch(ctx, w.list, append([]client.ListOption{&client.ListOptions{Raw: &raw}}, w.options...)...)
}
