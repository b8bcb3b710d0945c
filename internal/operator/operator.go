// Package operator assembles the controllers of the operator on a manager. Flags, probes and listeners do not belong here,
// but in the command.
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
	"github.com/apikey-operator/apikey-operator/controllers/recording"
	"github.com/apikey-operator/apikey-operator/internal/fleet"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
)

// Scheme returns a scheme with the kinds that the operator reads and writes.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// ManagerOptions returns the options that every manager of the operator needs: the scheme and the cache. namespaces are the
// namespaces of the keys; if empty, all namespaces.
func ManagerOptions(namespaces []string) ctrl.Options {
	return ctrl.Options{
		Scheme: Scheme(),
		Cache:  cacheOptions(namespaces),
		// Never cache Secrets: a cached read would list and watch all Secrets, for which the operator has no permission.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
	}
}

// Parts are the dependencies of the controllers. All fields are required, except for Namespace and UsageWrites.
type Parts struct {
	// Client reads ApiKeys, possibly from a cache, and writes all objects.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Rules decides which keys may be issued.
	Rules *rulebook.Book
	// Recorder emits events.
	Recorder events.EventRecorder
	// Registry is where the metrics are registered. It must not contain the operator's metrics yet.
	Registry prometheus.Registerer
	// Clock gives the current time. Skew returns that time minus the API server's.
	Clock clock.PassiveClock
	Skew  func(context.Context) (time.Duration, error)
	// TokenPrefix is the prefix of tokens minted from now on.
	TokenPrefix string
	// TTLAfterExpired is how long an expired ApiKey is kept if spec.ttlAfterExpired is absent.
	TTLAfterExpired time.Duration
	// MinRotationEvery is the least time between two rotations by schedule.
	MinRotationEvery time.Duration
	// CountDelay is how long changes of keys are gathered before the keys of each role are counted.
	CountDelay time.Duration
	// Namespace is the namespace of the operator, or empty if it is unknown. Reports of use there speak of all keys.
	Namespace string
	// UsagePrecision is how old the recorded use of a key may become before a later one is recorded.
	UsagePrecision time.Duration
	// UsageWrites is the largest number of keys a second whose last use is recorded. With zero, none is recorded.
	UsageWrites float64
}

// Controllers are the controllers of the operator.
type Controllers struct {
	Issuing   *issuing.Reconciler
	Expiring  *expiring.Reconciler
	Counting  *counting.Reconciler
	Recording *recording.Reconciler

	parts Parts
}

// New creates the controllers and registers their metrics. It panics if these are already registered.
func New(p Parts) *Controllers {
	return &Controllers{
		Issuing: &issuing.Reconciler{
			Client: p.Client, Live: p.Live, Rules: p.Rules, Recorder: p.Recorder, Metrics: issuing.NewMetrics(p.Registry),
			Clock: p.Clock, Skew: p.Skew, TokenPrefix: p.TokenPrefix, TTLAfterExpired: p.TTLAfterExpired,
			MinRotationEvery: p.MinRotationEvery,
		},
		Expiring: &expiring.Reconciler{
			Client: p.Client, Live: p.Live, Recorder: p.Recorder, Deleted: expiring.NewDeletedCounter(p.Registry),
			Clock: p.Clock, Skew: p.Skew, TTLAfterExpired: p.TTLAfterExpired,
		},
		Counting: &counting.Reconciler{Client: p.Client, Rules: p.Rules, Delay: p.CountDelay},
		Recording: &recording.Reconciler{
			Client: p.Client, Namespace: p.Namespace, Clock: p.Clock, Skew: p.Skew, Precision: p.UsagePrecision, Writes: p.UsageWrites,
			Metrics: recording.NewMetrics(p.Registry),
		},
		parts: p,
	}
}

// Options says how the controllers run on a manager.
type Options struct {
	// Workers is the number of keys that each controller reconciles at the same time.
	Workers int
	// Namespaces are the namespaces of the keys; if empty, all namespaces.
	Namespaces []string
	// MetricPerKey exports one series per issued key, with the time at which it expires.
	MetricPerKey bool
}

// SetupWithManager adds the controllers to a manager, and registers the metrics about all keys.
func (c *Controllers) SetupWithManager(mgr ctrl.Manager, o Options) error {
	if err := c.Issuing.SetupWithManager(mgr, o.Workers); err != nil {
		return fmt.Errorf("set up the issuing controller: %w", err)
	}
	if err := c.Expiring.SetupWithManager(mgr, o.Workers); err != nil {
		return fmt.Errorf("set up the expiring controller: %w", err)
	}
	// With namespaces the counts would be incomplete, and two operators would overwrite each other's.
	if len(o.Namespaces) == 0 {
		if err := c.Counting.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up the counting controller: %w", err)
		}
	}
	if c.parts.UsageWrites > 0 {
		if err := c.Recording.SetupWithManager(mgr, recording.Options{Namespaces: o.Namespaces}); err != nil {
			return fmt.Errorf("set up the recording controller: %w", err)
		}
	}
	collector := fleet.NewCollector(mgr.GetClient(), mgr.Elected(), c.parts.Clock, o.MetricPerKey)
	if err := c.parts.Registry.Register(collector); err != nil {
		return fmt.Errorf("register the key metrics: %w", err)
	}
	return nil
}
