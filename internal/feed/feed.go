// Package feed feeds ApiKeys and the role catalogue to the verifier's index; it writes nothing to the cluster, and reads no Secret.
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

// Options of a Loader. The zero value loads every ApiKey of the cluster.
type Options struct {
	// Namespaces are those whose keys are loaded; none means all.
	Namespaces []string
	// Selector picks keys by their labels; nil means all.
	Selector labels.Selector
	// Logger is told what is wrong with a key.
	Logger logr.Logger
}

// Loader keeps an index in step with the cluster's ApiKeys, by a watch for each namespace, each with its own source, and with its
// ApiRoles.
type Loader struct {
	client    rest.Interface
	params    runtime.ParameterCodec
	options   Options
	index     *index.Index
	reflected []*reflected
	started   time.Time
	loadTime  atomic.Int64 // nanoseconds; 0 until loaded
}

// reflected is one watch and what it feeds.
type reflected struct {
	resource  string
	namespace string
	selector  string
	example   runtime.Object
	newList   func() runtime.Object
	// condense, if set, makes less of each page of a list, before they are all gathered.
	condense func(list runtime.Object) (runtime.Object, error)
	store    cache.ReflectorStore
	fed      fed
	// refused is called whenever the API server says that this may not be read.
	refused func()
}

// fed is what a watch feeds.
type fed interface {
	Age(now time.Time) time.Duration
}

// name tells watches apart in metrics: apikeys, or apikeys/NAMESPACE, and apiroles.
func (r *reflected) name() string {
	if r.namespace == "" {
		return r.resource
	}
	return r.resource + "/" + r.namespace
}

// NewLoader returns a loader that feeds an index as the user of a configuration: it needs to get, list and watch ApiKeys and ApiRoles.
func NewLoader(config *rest.Config, x *index.Index, options Options) (*Loader, error) {
	scheme := newScheme()
	client, err := restClient(config, scheme)
	if err != nil {
		return nil, fmt.Errorf("client for ApiKeys: %w", err)
	}
	l := &Loader{client: client, params: runtime.NewParameterCodec(scheme), options: options, index: x}
	// Two watches of one namespace would tell of each key twice.
	namespaces := slices.Compact(slices.Sorted(slices.Values(options.Namespaces)))
	for _, namespace := range namespaces {
		// The API server takes an empty name for all namespaces.
		if err := access.ValidateNamespace(namespace); err != nil {
			return nil, err
		}
	}
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	selector := ""
	if options.Selector != nil {
		selector = options.Selector.String()
	}
	for _, namespace := range namespaces {
		source := x.Source()
		keys := &store{source: source, logger: options.Logger, replaced: l.noteLoaded}
		l.reflected = append(l.reflected, &reflected{
			resource: "apikeys", namespace: namespace, selector: selector,
			example: &object{}, newList: func() runtime.Object { return &objectList{} },
			condense: keys.condense, store: keys, fed: source,
			refused: func() {
				source.Refused()
				l.noteLoaded()
			},
		})
	}
	catalogue := x.Catalogue()
	l.reflected = append(l.reflected, &reflected{
		resource: "apiroles",
		example:  &v1alpha1.ApiRole{}, newList: func() runtime.Object { return &v1alpha1.ApiRoleList{} },
		store:   &roles{catalogue: catalogue, includes: map[string][]string{}, replaced: l.noteLoaded},
		fed:     catalogue,
		refused: func() {}, // no key can be judged without the catalogue: it is waited for
	})
	return l, nil
}

func restClient(config *rest.Config, scheme *runtime.Scheme) (rest.Interface, error) {
	c := rest.CopyConfig(config)
	c.APIPath = "/apis"
	c.GroupVersion = &v1alpha1.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	// Custom resources are served as JSON.
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	return rest.RESTClientFor(c)
}

// Run loads and follows until the context ends.
func (l *Loader) Run(ctx context.Context) {
	l.started = time.Now()
	var running sync.WaitGroup
	for _, r := range l.reflected {
		running.Go(func() { l.reflector(r).RunWithContext(ctx) })
	}
	running.Wait()
}

// LoadTime is how long the first load took; false until it is over.
func (l *Loader) LoadTime() (time.Duration, bool) {
	d := time.Duration(l.loadTime.Load())
	return d, d != 0
}

func (l *Loader) noteLoaded() {
	if l.index.Loaded() && l.loadTime.CompareAndSwap(0, int64(time.Since(l.started))) {
		l.options.Logger.Info("loaded", "keys", l.index.Size(), "duplicateDigests", l.index.Duplicates(), "took", time.Since(l.started).String())
	}
}

// pageSize is how many objects are asked for at once, of an API server that does not stream them. A page is held as a whole, and each
// object of it may be as large as etcd allows.
const pageSize = 100

// Revocations lag behind for as long as a watch waits before it tries again, so it waits for three seconds at most, where
// client-go's own reflectors go up to a minute.
func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 12, Cap: 2 * time.Second}
}

func (l *Loader) reflector(r *reflected) *cache.Reflector {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = r.selector
			// Any version would do for a cache; here an old one would bring deleted keys back to life. The empty version asks for a
			// consistent read, which is also what can be asked for in pages.
			o.ResourceVersion = ""
			list := r.newList()
			err := l.client.Get().Namespace(r.namespace).Resource(r.resource).VersionedParams(&o, l.params).Do(ctx).Into(list)
			// A namespace that is gone, or has no Role, is answered by this. Whatever else goes wrong tells nothing of the namespace: the
			// API server is not there, or is not well, and is waited for.
			if apierrors.IsForbidden(err) {
				r.refused()
			}
			if err != nil || r.condense == nil {
				return list, err
			}
			return r.condense(list)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = r.selector
			o.Watch = true
			return l.client.Get().Namespace(r.namespace).Resource(r.resource).VersionedParams(&o, l.params).Watch(ctx)
		},
	}
	logger := klog.Background()
	reflector := cache.NewReflectorWithOptions(lw, r.example, r.store, cache.ReflectorOptions{
		Name: r.name(), Logger: &logger, Backoff: backoff(),
	})
	reflector.WatchListPageSize = pageSize
	return reflector
}
