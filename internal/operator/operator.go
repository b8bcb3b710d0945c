// Package operator puts the operator's controllers together on a manager; what flags, probes and listeners there are is the command's.
package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/controllers/counting"
	"github.com/apikey-operator/apikey-operator/controllers/expiring"
	"github.com/apikey-operator/apikey-operator/controllers/issuing"
	"github.com/apikey-operator/apikey-operator/internal/fleet"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
)

// Scheme knows the kinds that the operator reads and writes.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// ManagerOptions are what every manager of the operator needs: the kinds, and what is kept in memory of them. namespaces are those whose
// keys it looks after; none means all.
func ManagerOptions(namespaces []string) ctrl.Options {
	return ctrl.Options{
		Scheme: Scheme(),
		Cache:  cacheOptions(namespaces),
		// No Secret is ever cached: a cached read would start a list and a watch of all Secrets, which the operator may not do.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
	}
}

// Parts are what the controllers are made of. All fields are required.
type Parts struct {
	// Client reads ApiKeys, which may be from a cache, and writes.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Rules say which keys may be issued.
	Rules *rulebook.Book
	// Recorder emits events.
	Recorder events.EventRecorder
	// Registry takes the metrics. It must have none of the operator's yet.
	Registry prometheus.Registerer
	// Clock is what time it is, and Skew how far that is from the API server's.
	Clock clock.PassiveClock
	Skew  func(context.Context) (time.Duration, error)
	// TokenPrefix is the prefix of tokens minted from now on.
	TokenPrefix string
	// TTLAfterExpired is how long an expired ApiKey stays where its spec does not say.
	TTLAfterExpired time.Duration
	// CountDelay is how long changes of keys are gathered before roles are told how many keys carry them.
	CountDelay time.Duration
}

// Controllers are all of the operator's controllers.
type Controllers struct {
	Issuing  *issuing.Reconciler
	Expiring *expiring.Reconciler
	Counting *counting.Reconciler

	parts Parts
}

// New makes the controllers and registers their metrics. It panics where these are registered already.
func New(p Parts) *Controllers {
	return &Controllers{
		Issuing: &issuing.Reconciler{
			Client: p.Client, Live: p.Live, Rules: p.Rules, Recorder: p.Recorder, Metrics: issuing.NewMetrics(p.Registry),
			Clock: p.Clock, Skew: p.Skew, TokenPrefix: p.TokenPrefix, TTLAfterExpired: p.TTLAfterExpired,
		},
		Expiring: &expiring.Reconciler{
			Client: p.Client, Live: p.Live, Recorder: p.Recorder, Deleted: expiring.NewDeletedCounter(p.Registry),
			Clock: p.Clock, Skew: p.Skew, TTLAfterExpired: p.TTLAfterExpired,
		},
		Counting: &counting.Reconciler{Client: p.Client, Rules: p.Rules, Delay: p.CountDelay},
		parts:    p,
	}
}

// Options of how the controllers run on a manager.
type Options struct {
	// Workers is how many keys each controller works on at once.
	Workers int
	// Namespaces are those whose keys are looked after; none means all.
	Namespaces []string
	// MetricPerKey adds a series for each key that is in use: when it expires.
	MetricPerKey bool
}

// SetupWithManager registers the controllers, and the metrics of all keys, with a manager.
func (c *Controllers) SetupWithManager(mgr ctrl.Manager, o Options) error {
	if err := c.Issuing.SetupWithManager(mgr, o.Workers); err != nil {
		return fmt.Errorf("set up the issuing controller: %w", err)
	}
	if err := c.Expiring.SetupWithManager(mgr, o.Workers); err != nil {
		return fmt.Errorf("set up the expiring controller: %w", err)
	}
	// A count of some namespaces' keys would pass for that of all, and two operators would each overwrite the other's.
	if len(o.Namespaces) == 0 {
		if err := c.Counting.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up the counting controller: %w", err)
		}
	}
	collector := fleet.NewCollector(mgr.GetClient(), mgr.Elected(), c.parts.Clock, o.MetricPerKey)
	if err := c.parts.Registry.Register(collector); err != nil {
		return fmt.Errorf("register the metrics of keys: %w", err)
	}
	return nil
}
