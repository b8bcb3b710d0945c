package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/controllers/counting"
	"github.com/apikey-operator/apikey-operator/internal/callers"
	"github.com/apikey-operator/apikey-operator/internal/clockskew"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/operator"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
	"github.com/apikey-operator/apikey-operator/internal/version"
)

const (
	component = "apikey-operator"
	leaseName = "apikey-operator"

	// gracePeriod must be longer than a reconcile of package issuing may take.
	gracePeriod = 30 * time.Second

	// gcPercent is how much the heap grows, relative to what is live, until garbage is collected. A pass over all keys, as after a start,
	// leaves several times as much garbage as is live. Compared with 50, 30 saves about a sixth of the memory that keys take, and costs a
	// tenth more processor time for each issued key.
	gcPercent = 30

	probeTimeout = 2 * time.Second
)

// run starts the operator. It returns when ctx is canceled and all reconciles in progress are done.
func run(ctx context.Context, o *options, logger logr.Logger) error {
	process.SetGCPercent(gcPercent)
	config, err := restConfig(o)
	if err != nil {
		return err
	}
	mgr, err := newManager(config, o)
	if err != nil {
		return err
	}
	ttl, err := expiry.ParseDuration(o.ttlAfterExpired)
	if err != nil {
		return err
	}
	minRotation, err := expiry.ParseDuration(o.minRotation)
	if err != nil {
		return err
	}
	serverURL, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return fmt.Errorf("determine the address of the API server: %w", err)
	}
	skew := clockskew.NewMeter(mgr.GetHTTPClient(), serverURL.JoinPath("version").String())
	recorder := newLimitedRecorder(mgr.GetEventRecorder(component), metrics.Registry)
	rules, err := rulebook.New(mgr, rulebook.Options{
		RequireCatalogue: o.requireCatalogue, RequirePolicy: o.requirePolicy, Namespaces: o.namespaces,
	})
	if err != nil {
		return err
	}

	controllers := operator.New(operator.Parts{
		Client:           mgr.GetClient(),
		Live:             mgr.GetAPIReader(),
		Rules:            rules,
		Recorder:         recorder,
		Registry:         metrics.Registry,
		Clock:            clock.RealClock{},
		Skew:             skew.Skew,
		TokenPrefix:      o.tokenPrefix,
		TTLAfterExpired:  ttl,
		MinRotationEvery: minRotation,
		CountDelay:       counting.DefaultDelay,
		Namespace:        process.PodNamespace(),
		UsagePrecision:   o.usagePrecision,
		UsageWrites:      o.usageWrites,
	})
	if err := controllers.SetupWithManager(mgr, operator.Options{
		Workers: o.workers, Namespaces: o.namespaces, MetricPerKey: o.metricPerKey,
	}); err != nil {
		return err
	}
	if err := metrics.Registry.Register(clockskew.NewCollector(skew.Skew)); err != nil {
		return fmt.Errorf("register the clock skew metric: %w", err)
	}
	// Replicas that are not the leader load the keys too, so that they can take over quickly. They become ready after that.
	if _, err := mgr.GetCache().GetInformer(ctx, &v1alpha1.ApiKey{}, cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watch ApiKeys: %w", err)
	}
	if err := addProbes(mgr, rules, serverURL.JoinPath("readyz").String()); err != nil {
		return err
	}

	if o.usageWrites > 0 && process.PodNamespace() == "" {
		logger.Info("The operator does not run in a pod, so no verifier can report the use of keys in all namespaces: set POD_NAMESPACE to the " +
			"namespace of the verifiers, or --usage-writes-per-second=0")
	}
	logger.Info("Starting", "version", version.String(), "server", config.Host, "workers", o.workers, "leaderElection", o.leaderElect,
		"namespaces", o.namespaces)
	if err := start(ctx, mgr); err != nil {
		return err
	}
	logger.Info("Stopped")
	return nil
}

func restConfig(o *options) (*rest.Config, error) {
	config, err := o.Config(component)
	if err == nil && o.qps > 0 {
		config.QPS, config.Burst = o.qps, o.burst
	}
	return config, err
}

// start runs a manager until ctx is canceled and all reconciles in progress are done. If the caches have not synced by then,
// there are none, and start returns at once: controller-runtime would keep waiting for the caches, in a busy loop.
func start(ctx context.Context, mgr ctrl.Manager) error {
	synced := make(chan struct{})
	if err := mgr.Add(afterCaches(func() {
		close(synced)
		debug.FreeOSMemory() // what only reading all keys took
	})); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-synced:
		return <-ended
	case <-ctx.Done():
		return nil
	}
}

// afterCaches is a function that a manager calls once its caches have synced, on every replica.
type afterCaches func()

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (afterCaches) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (f afterCaches) Start(context.Context) error {
	f()
	return nil
}

func newManager(config *rest.Config, o *options) (ctrl.Manager, error) {
	grace := gracePeriod
	options := operator.ManagerOptions(o.namespaces)
	options.LeaderElection = o.leaderElect
	options.LeaderElectionID = leaseName
	options.LeaderElectionNamespace = o.leaderElectNamespace
	options.LeaseDuration, options.RenewDeadline, options.RetryPeriod = &o.leaseDuration, &o.renewDeadline, &o.retryPeriod
	// Releasing the lease is safe because the process exits right after the manager stops.
	options.LeaderElectionReleaseOnCancel = true
	options.GracefulShutdownTimeout = &grace
	options.Metrics = metricsserver.Options{
		BindAddress:    o.metricsAddress,
		SecureServing:  true,
		CertDir:        o.metricsCertDir,
		FilterProvider: protectMetrics,
	}
	if o.metricsCertDir == "" {
		certificate, err := process.SelfSigned(time.Now())
		if err != nil {
			return nil, fmt.Errorf("certificate for the metrics: %w", err)
		}
		options.Metrics.TLSOpts = append(options.Metrics.TLSOpts, func(config *tls.Config) {
			config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }
		})
	}
	options.HealthProbeBindAddress = o.probeAddress
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return nil, fmt.Errorf("create the manager: %w", err)
	}
	return mgr, nil
}

// protectMetrics admits callers whose RBAC allows get on /metrics.
func protectMetrics(config *rest.Config, _ *http.Client) (metricsserver.Filter, error) {
	putOff := callers.NewPutOff(metrics.Registry, monitoring.Operator).WithLabelValues("metrics")
	guard, err := callers.New(config, callers.Options{Logger: ctrl.Log, PutOff: putOff})
	if err != nil {
		return nil, fmt.Errorf("set up caller reviews: %w", err)
	}
	return func(_ logr.Logger, handler http.Handler) (http.Handler, error) { return guard.Protect(handler), nil }, nil
}

// addProbes adds the probes. The liveness probe succeeds while the process responds: a leader that has lost its lease, or
// whose controllers can't start, exits by itself. The readiness probe succeeds, on replicas that are not the leader too,
// once all ApiKeys, ApiRoles, ApiKeyPolicies and namespaces are loaded and while the API server responds.
func addProbes(mgr ctrl.Manager, rules *rulebook.Book, readyURL string) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("cache", func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), probeTimeout)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("ApiKeys are not loaded yet")
		}
		return nil
	}); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("rules", func(*http.Request) error { return rules.Ready() }); err != nil {
		return err
	}
	return mgr.AddReadyzCheck("apiserver", func(probe *http.Request) error {
		ctx, cancel := context.WithTimeout(probe.Context(), probeTimeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, readyURL, nil)
		if err != nil {
			return err
		}
		response, err := mgr.GetHTTPClient().Do(request)
		if err != nil {
			return fmt.Errorf("API server does not respond: %w", err)
		}
		if err := response.Body.Close(); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("API server responds with %s", response.Status)
		}
		return nil
	})
}
