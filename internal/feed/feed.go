// Package feed keeps the index of a verifier up to date with the ApiKeys and the role catalogue of a cluster.
// Don't write to the cluster here, and don't read Secrets.
package feed

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/index"
)

// Options configure a [Loader]. The zero value loads all ApiKeys of the cluster.
type Options struct {
	// Namespaces whose API keys are loaded. Empty means all namespaces.
	Namespaces []string
	// Selector restricts the API keys by the labels of the ApiKey. Nil means all API keys.
	Selector labels.Selector
	// Logger receives the completion of the first load, and ApiKeys with fields that can't be read.
	Logger logr.Logger
	// Read is called once, when the first load has been read and is about to count. What reading it took is garbage then. Nil means
	// that nobody asks.
	Read func()
}

// Loader keeps an [index.Index] up to date with the ApiKeys and ApiRoles of a cluster. It watches the ApiKeys
// of each namespace separately, each with its own [index.Source].
type Loader struct {
	client   rest.Interface
	params   runtime.ParameterCodec
	options  Options
	index    *index.Index
	watches  []*watched
	unread   atomic.Int64 // number of sources whose first load is not read and that are not forbidden
	started  time.Time
	loadTime atomic.Int64 // nanoseconds; 0 until the first load is complete
}

// watched is a watch and the feed that it updates.
type watched struct {
	resource  string
	namespace string
	selector  string
	example   runtime.Object
	list      func(context.Context, *rest.Request) (runtime.Object, error)
	watch     func(ctx context.Context, request *rest.Request, initial bool) (watch.Interface, error)
	store     cache.ReflectorStore
	feed      aged
	// forbidden is called each time the API server denies access.
	forbidden func()
}

// aged is a feed of the index, as far as metrics need it.
type aged interface {
	Age(now time.Time) time.Duration
}

// name returns the name of the watch in metrics: apikeys, apikeys/NAMESPACE or apiroles.
func (r *watched) name() string {
	if r.namespace == "" {
		return r.resource
	}
	return r.resource + "/" + r.namespace
}

// NewLoader returns a [Loader] for the index. The user of config must be allowed to get, list and watch
// ApiKeys and ApiRoles. It returns an error if config or a namespace is invalid.
func NewLoader(config *rest.Config, x *index.Index, options Options) (*Loader, error) {
	scheme := newScheme()
	client, err := restClient(config, scheme)
	if err != nil {
		return nil, fmt.Errorf("create a client for ApiKeys: %w", err)
	}
	l := &Loader{client: client, params: runtime.NewParameterCodec(scheme), options: options, index: x}
	// Two watches of the same namespace would report each key twice.
	namespaces := slices.Compact(slices.Sorted(slices.Values(options.Namespaces)))
	for _, namespace := range namespaces {
		// An empty name would select all namespaces.
		if err := access.ValidateNamespace(namespace); err != nil {
			return nil, err
		}
	}
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	l.unread.Store(int64(len(namespaces)))
	selector := ""
	if options.Selector != nil {
		selector = options.Selector.String()
	}
	for _, namespace := range namespaces {
		source := x.Source()
		read := sync.OnceFunc(l.noteRead)
		keys := &store{source: source, logger: options.Logger, read: read, replaced: l.noteLoaded}
		l.watches = append(l.watches, &watched{
			resource: "apikeys", namespace: namespace, selector: selector,
			example: &object{}, list: keys.list, watch: keys.watch, store: keys, feed: source,
			forbidden: func() {
				source.Forbidden()
				read()
				l.noteLoaded()
			},
		})
	}
	catalogue := x.Catalogue()
	l.watches = append(l.watches, &watched{
		resource: "apiroles",
		example:  &v1alpha1.ApiRole{},
		list: func(ctx context.Context, request *rest.Request) (runtime.Object, error) {
			list := &v1alpha1.ApiRoleList{}
			return list, request.Do(ctx).Into(list)
		},
		watch: func(ctx context.Context, request *rest.Request, _ bool) (watch.Interface, error) {
			return request.Watch(ctx)
		},
		store:     &roles{catalogue: catalogue, includes: map[string][]string{}, replaced: l.noteLoaded},
		feed:      catalogue,
		forbidden: func() {}, // wait: no key can be checked without the catalogue
	})
	return l, nil
}

func restClient(config *rest.Config, scheme *runtime.Scheme) (rest.Interface, error) {
	c := rest.CopyConfig(config)
	c.APIPath = "/apis"
	c.GroupVersion = &v1alpha1.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	// The API server serves custom resources as JSON only.
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	return rest.RESTClientFor(c)
}

// Run loads the index and follows changes until ctx is done.
func (l *Loader) Run(ctx context.Context) {
	l.started = time.Now()
	var running sync.WaitGroup
	for _, r := range l.watches {
		running.Go(func() { l.reflector(r).RunWithContext(ctx) })
	}
	running.Wait()
}

// LoadTime returns how long the first load took, or false if it is not complete.
func (l *Loader) LoadTime() (time.Duration, bool) {
	d := time.Duration(l.loadTime.Load())
	return d, d != 0
}

func (l *Loader) noteRead() {
	if l.unread.Add(-1) == 0 && l.options.Read != nil {
		l.options.Read()
	}
}

func (l *Loader) noteLoaded() {
	if l.index.Loaded() && l.loadTime.CompareAndSwap(0, int64(time.Since(l.started))) {
		l.options.Logger.Info("API keys loaded", "keys", l.index.Size(), "duplicateDigests", l.index.Duplicates(), "took", time.Since(l.started).String())
	}
}

// pageSize is the number of objects per page of a list, which is read where a streaming list is not supported or ends early. A page of
// ApiRoles is in memory as a whole, and each can be as large as etcd allows.
const pageSize = 100

// backoff limits the delay before a watch is retried to three seconds: revocations take effect only after
// that. The default of client-go goes up to a minute.
func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 12, Cap: 2 * time.Second}
}

func (l *Loader) reflector(r *watched) *cache.Reflector {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = r.selector
			// The empty version requests a consistent read. An older version would make deleted keys valid again. Only a
			// consistent read can be paged, too.
			o.ResourceVersion = ""
			list, err := r.list(ctx, l.client.Get().Namespace(r.namespace).Resource(r.resource).VersionedParams(&o, l.params))
			// Forbidden is the answer for a namespace that is gone or has no Role for us. Other errors say nothing about the
			// namespace: the API server is unavailable, and the reflector retries.
			if apierrors.IsForbidden(err) {
				r.forbidden()
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = r.selector
			o.Watch = true
			initial := o.SendInitialEvents != nil && *o.SendInitialEvents
			return r.watch(ctx, l.client.Get().Namespace(r.namespace).Resource(r.resource).VersionedParams(&o, l.params), initial)
		},
	}
	logger := klog.Background()
	reflector := cache.NewReflectorWithOptions(lw, r.example, r.store, cache.ReflectorOptions{
		Name: r.name(), Logger: &logger, Backoff: backoff(),
	})
	reflector.WatchListPageSize = pageSize
	return reflector
}
