// Package harness runs the operator's controllers in the test's process against a real API server, as the operator's service account. The
// test chooses the clock and the network. A [Witness] checks every status and searches all output for tokens.
package harness

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrlzap "sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/apikey-operator/apikey-operator/internal/operator"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
)

// DefaultTTL is how long the controllers keep an expired key that sets no ttlAfterExpired.
const DefaultTTL = 24 * time.Hour

// Scheme returns a scheme with all types that the tests use.
func Scheme() *runtime.Scheme { return operator.Scheme() }

// Options configure the controllers. Config and Witness are required.
type Options struct {
	// Config connects as the operator's service account.
	Config *rest.Config
	// Witness gets every log line and event and searches them for tokens.
	Witness *Witness
	// Network, if set, intercepts every request from the controllers to the API server.
	Network *Network
	// Clock defaults to the real clock.
	Clock clock.PassiveClock
	// Skew returns how far the clock is off the API server's. It defaults to zero.
	Skew func(context.Context) (time.Duration, error)
	// MinRotationEvery is the least time between two rotations by schedule. It defaults to an hour.
	MinRotationEvery time.Duration
	// Rules decide whether an empty role catalogue, or a cluster without policies, denies every key.
	Rules rulebook.Options
	// UsagePrecision and UsageWrites are those of the controller that records the use of keys. With the zero value, none is recorded.
	UsagePrecision time.Duration
	UsageWrites    float64
	// Namespaces are those whose keys a manager handles. The default are all.
	Namespaces []string
}

// namespace is the namespace of the operator.
const namespace = "apikey-operator-system"

func (o Options) config() *rest.Config {
	c := rest.CopyConfig(o.Config)
	c.QPS = -1
	if o.Network != nil {
		c.Wrap(o.Network.wrap)
	}
	return c
}

func (o Options) controllers(c client.Client, live client.Reader, rules *rulebook.Book, recorder events.EventRecorder) *Controllers {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Skew == nil {
		o.Skew = func(context.Context) (time.Duration, error) { return 0, nil }
	}
	if o.MinRotationEvery == 0 {
		o.MinRotationEvery = time.Hour
	}
	registry := prometheus.NewRegistry()
	o.Witness.registries.add(registry)
	return &Controllers{
		Controllers: operator.New(operator.Parts{
			Client: c, Live: live, Rules: rules, Recorder: recorder, Registry: registry, Clock: o.Clock, Skew: o.Skew,
			TokenPrefix: "ak", TTLAfterExpired: DefaultTTL, MinRotationEvery: o.MinRotationEvery,
			CountDelay: 50 * time.Millisecond,
			Namespace:  namespace, UsagePrecision: o.UsagePrecision, UsageWrites: o.UsageWrites,
		}),
		Registry: registry,
		logger:   o.Witness.Logger(),
	}
}

// Controllers are the operator's controllers. A test calls their reconcilers directly; they read live objects, without a queue or cache.
type Controllers struct {
	*operator.Controllers
	// Registry holds the controllers' metrics.
	Registry *prometheus.Registry

	logger logr.Logger
}

// NewControllers returns controllers whose reconcilers the test calls.
func NewControllers(o Options) (*Controllers, error) {
	c, err := client.New(o.config(), client.Options{Scheme: Scheme()})
	if err != nil {
		return nil, err
	}
	// Roles, policies and namespaces are read past the network, because a manager reads them from its cache.
	rules, err := client.New(o.Config, client.Options{Scheme: Scheme()})
	if err != nil {
		return nil, err
	}
	return o.controllers(c, c, rulebook.NewLive(rules, o.Rules), o.Witness.Recorder()), nil
}

// Pass reconciles a key once with the issuing controller.
func (c *Controllers) Pass(ctx context.Context, key client.Object) (ctrl.Result, error) {
	ctx = logr.NewContext(ctx, c.logger)
	return c.Issuing.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(key)})
}

// Collect reconciles a key once with the expiring controller.
func (c *Controllers) Collect(ctx context.Context, key client.Object) (ctrl.Result, error) {
	ctx = logr.NewContext(ctx, c.logger)
	return c.Expiring.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(key)})
}

// Manager is the operator's manager, with its cache, its queues and, if configured, its leader election.
type Manager struct {
	ctrl.Manager

	stop   context.CancelFunc
	exited chan error
}

// Lease is the operator's lease, which is the only one that its account may read and update.
const Lease = "apikey-operator"

// StartManager starts a manager with the given number of workers per controller. If lease is not empty, managers with the same lease elect a
// leader.
func StartManager(o Options, workers int, lease string) (*Manager, error) {
	options := operator.ManagerOptions(o.Namespaces)
	options.Logger = o.Witness.Logger()
	options.Metrics = metricsserver.Options{BindAddress: "0"}
	options.Controller = config.Controller{SkipNameValidation: ptr.To(true)}
	options.LeaderElection = lease != ""
	options.LeaderElectionID = lease
	options.LeaderElectionNamespace = namespace
	options.LeaderElectionReleaseOnCancel = true
	mgr, err := ctrl.NewManager(o.config(), options)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	rules, err := rulebook.New(mgr, o.Rules)
	if err != nil {
		stop()
		return nil, err
	}
	controllers := o.controllers(mgr.GetClient(), mgr.GetAPIReader(), rules, mgr.GetEventRecorder("apikey-operator"))
	if err := controllers.SetupWithManager(mgr, operator.Options{Workers: workers, MetricPerKey: true, Namespaces: o.Namespaces}); err != nil {
		stop()
		return nil, err
	}
	m := &Manager{Manager: mgr, stop: stop, exited: make(chan error, 1)}
	go func() { m.exited <- mgr.Start(ctx) }()
	return m, nil
}

// Stop stops the manager and waits for it. It returns an error if that takes longer than a minute.
func (m *Manager) Stop() error {
	m.stop()
	select {
	case err := <-m.exited:
		return err
	case <-time.After(time.Minute):
		return errors.New("the manager did not stop within a minute")
	}
}

// Logger returns a logger that writes messages of every level to the witness, as with --log-level=10.
func (w *Witness) Logger() logr.Logger {
	return ctrlzap.New(ctrlzap.WriteTo(w), ctrlzap.Level(zapcore.Level(-10)))
}
