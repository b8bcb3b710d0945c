// Command controllers runs those controllers of kube-controller-manager that the demo and the tests need, from its own packages and each
// as its own service account. What is left out (nodes, volumes, jobs, Services and more) is three quarters of what there would be to compile.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/clientbuilder"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/resourcequota"
	quotainstall "k8s.io/kubernetes/pkg/quota/v1/install"
)

// Numbers of workers, rates and periods are those that kube-controller-manager has by default.
const (
	qps, burst   = 20, 30
	resyncPeriod = 12 * time.Hour
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "`file` with an administrator's access to the API server")
	rootCA := flag.String("root-ca-file", "", "`file` of the certificate authority that each namespace is told of")
	quotaPeriod := flag.Duration("resource-quota-sync-period", 5*time.Minute, "how often quotas are counted again")
	discoveryPeriod := flag.Duration("discovery-period", 30*time.Second, "how often new kinds are looked for; kube-controller-manager does it every 30s")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *rootCA, *quotaPeriod, *discoveryPeriod); err != nil {
		fmt.Fprintln(os.Stderr, "controllers:", err)
		os.Exit(1)
	}
}

// manager has what the controllers share.
type manager struct {
	clients   clientbuilder.ControllerClientBuilder
	informers informers.SharedInformerFactory
	metadata  metadata.Interface
	// any has informers of every kind, by its metadata where the kind is not built in.
	any    informerfactory.InformerFactory
	mapper *restmapper.DeferredDiscoveryRESTMapper
	// started is closed once the informers run.
	started chan struct{}

	rootCA          []byte
	quotaPeriod     time.Duration
	discoveryPeriod time.Duration
}

// constructor makes a controller, and returns what runs it until its context ends.
type constructor func(context.Context, *manager) (func(context.Context), error)

func run(ctx context.Context, kubeconfig, rootCA string, quotaPeriod, discoveryPeriod time.Duration) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = qps, burst
	m := &manager{started: make(chan struct{}), quotaPeriod: quotaPeriod, discoveryPeriod: discoveryPeriod}
	if m.rootCA, err = os.ReadFile(rootCA); err != nil {
		return err
	}
	if err := m.connect(ctx, config); err != nil {
		return err
	}

	runs := []func(context.Context){}
	for _, construct := range []constructor{
		serviceAccounts, rootCertificates, namespaces, garbageCollection, quotas, aggregatedRoles, deployments, replicaSets,
	} {
		run, err := construct(ctx, m)
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	m.informers.Start(ctx.Done())
	m.any.Start(ctx.Done())
	close(m.started)
	var running sync.WaitGroup
	for _, run := range runs {
		running.Go(func() { run(ctx) })
	}
	running.Wait()
	if ctx.Err() == nil {
		return errors.New("all controllers ended by themselves; their log says why")
	}
	return nil
}

func (m *manager) connect(ctx context.Context, config *rest.Config) error {
	root := clientbuilder.SimpleControllerClientBuilder{ClientConfig: config}
	client, err := root.Client("shared-informers")
	if err != nil {
		return err
	}
	m.clients = clientbuilder.NewDynamicClientBuilder(rest.AnonymousClientConfig(config), client.CoreV1(), metav1.NamespaceSystem)
	if m.metadata, err = metadata.NewForConfig(config); err != nil {
		return err
	}
	m.informers = informers.NewSharedInformerFactory(client, resyncPeriod)
	m.any = informerfactory.NewInformerFactory(m.informers, metadatainformer.NewSharedInformerFactory(m.metadata, resyncPeriod))
	discovery, err := root.DiscoveryClient("controller-discovery")
	if err != nil {
		return err
	}
	m.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery))
	go wait.UntilWithContext(ctx, func(context.Context) { m.mapper.Reset() }, m.discoveryPeriod)
	return nil
}

// serviceAccounts gives each namespace its default service account.
func serviceAccounts(ctx context.Context, m *manager) (func(context.Context), error) {
	client, err := m.clients.Client("service-account-controller")
	if err != nil {
		return nil, err
	}
	c, err := newServiceAccounts(klog.FromContext(ctx), m.informers, client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

// rootCertificates gives each namespace the ConfigMap kube-root-ca.crt.
func rootCertificates(_ context.Context, m *manager) (func(context.Context), error) {
	client, err := m.clients.Client("root-ca-cert-publisher")
	if err != nil {
		return nil, err
	}
	core := m.informers.Core().V1()
	c, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), client, m.rootCA)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

// namespaces empties namespaces that are deleted.
func namespaces(ctx context.Context, m *manager) (func(context.Context), error) {
	config, err := m.clients.Config("namespace-controller")
	if err != nil {
		return nil, err
	}
	config.QPS *= 20
	config.Burst *= 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	c := namespace.NewNamespaceController(ctx, client, objects, client.Discovery().ServerPreferredNamespacedResources,
		m.informers.Core().V1().Namespaces(), 5*time.Minute, corev1.FinalizerKubernetes)
	return func(ctx context.Context) { c.Run(ctx, 10) }, nil
}

// garbageCollection deletes objects whose owners are gone.
func garbageCollection(ctx context.Context, m *manager) (func(context.Context), error) {
	const name = "generic-garbage-collector"
	client, err := m.clients.Client(name)
	if err != nil {
		return nil, err
	}
	discovery, err := m.clients.DiscoveryClient(name)
	if err != nil {
		return nil, err
	}
	config, err := m.clients.Config(name)
	if err != nil {
		return nil, err
	}
	config.QPS *= 2
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	graph := garbagecollector.NewDependencyGraphBuilder(ctx, m.metadata, m.mapper, garbagecollector.DefaultIgnoredResources(), m.any, m.started)
	c, err := garbagecollector.NewComposedGarbageCollector(ctx, client, objects, m.mapper, graph)
	if err != nil {
		return nil, err
	}
	return both(
		func(ctx context.Context) { c.Run(ctx, 20, 30*time.Second) },
		func(ctx context.Context) { c.Sync(ctx, discovery, m.discoveryPeriod) },
	), nil
}

// quotas counts what ResourceQuotas limit.
func quotas(ctx context.Context, m *manager) (func(context.Context), error) {
	const name = "resourcequota-controller"
	client, err := m.clients.Client(name)
	if err != nil {
		return nil, err
	}
	discovery, err := m.clients.DiscoveryClient(name)
	if err != nil {
		return nil, err
	}
	configuration, err := newQuotaConfiguration(generic.ListerFuncForResourceFunc(m.informers.ForResource), m.informers)
	if err != nil {
		return nil, err
	}
	c, err := resourcequota.NewController(ctx, &resourcequota.ControllerOptions{
		QuotaClient:               client.CoreV1(),
		ResourceQuotaInformer:     m.informers.Core().V1().ResourceQuotas(),
		ResyncPeriod:              controller.StaticResyncPeriodFunc(m.quotaPeriod),
		InformerFactory:           m.any,
		ReplenishmentResyncPeriod: controller.StaticResyncPeriodFunc(resyncPeriod),
		DiscoveryFunc:             discovery.ServerPreferredNamespacedResources,
		IgnoredResourcesFunc:      configuration.IgnoredResources,
		InformersStarted:          m.started,
		Registry:                  generic.NewRegistry(configuration.Evaluators()),
		UpdateFilter:              quotainstall.DefaultUpdateFilter(),
	})
	if err != nil {
		return nil, err
	}
	return both(
		func(ctx context.Context) { c.Run(ctx, 5) },
		func(ctx context.Context) {
			c.Sync(ctx, discovery.ServerPreferredNamespacedResources, m.discoveryPeriod)
		},
	), nil
}

// aggregatedRoles fills ClusterRoles such as view with the rules of those that are labelled for it.
func aggregatedRoles(_ context.Context, m *manager) (func(context.Context), error) {
	client, err := m.clients.Client("clusterrole-aggregation-controller")
	if err != nil {
		return nil, err
	}
	c := clusterroleaggregation.NewClusterRoleAggregation(m.informers.Rbac().V1().ClusterRoles(), client.RbacV1())
	return func(ctx context.Context) { c.Run(ctx, 5) }, nil
}

func deployments(ctx context.Context, m *manager) (func(context.Context), error) {
	client, err := m.clients.Client("deployment-controller")
	if err != nil {
		return nil, err
	}
	apps := m.informers.Apps().V1()
	c, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), m.informers.Core().V1().Pods(), client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 5) }, nil
}

func replicaSets(ctx context.Context, m *manager) (func(context.Context), error) {
	client, err := m.clients.Client("replicaset-controller")
	if err != nil {
		return nil, err
	}
	c := replicaset.NewReplicaSetController(ctx, m.informers.Apps().V1().ReplicaSets(), m.informers.Core().V1().Pods(), client, replicaset.BurstReplicas)
	return func(ctx context.Context) { c.Run(ctx, 5) }, nil
}

// both runs two functions until both have returned.
func both(first, second func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		var running sync.WaitGroup
		running.Go(func() { first(ctx) })
		running.Go(func() { second(ctx) })
		running.Wait()
	}
}
