package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

const maxWorkers = 256

type options struct {
	process.Cluster
	process.Log

	namespaces []string

	tokenPrefix     string
	ttlAfterExpired string

	requireCatalogue bool
	requirePolicy    bool

	workers int
	qps     float32
	burst   int

	leaderElect          bool
	leaderElectNamespace string
	leaseDuration        time.Duration
	renewDeadline        time.Duration
	retryPeriod          time.Duration

	metricsAddress string
	metricsCertDir string
	metricPerKey   bool
	probeAddress   string
}

func defaultOptions() *options {
	return &options{
		tokenPrefix:     token.DefaultPrefix,
		ttlAfterExpired: "24h",
		workers:         16,
		leaderElect:     true,
		leaseDuration:   15 * time.Second,
		renewDeadline:   10 * time.Second,
		retryPeriod:     2 * time.Second,
		metricsAddress:  ":8443",
		probeAddress:    ":8081",
	}
}

func (o *options) addFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false

	o.Cluster.AddFlags(flags)
	flags.StringSliceVar(&o.namespaces, "namespaces", nil,
		"namespaces whose keys are issued and expired; absent means all; with it, keys are not counted in the status of ApiRoles")

	flags.StringVar(&o.tokenPrefix, "token-prefix", o.tokenPrefix,
		"what tokens minted from now on start with: 2 to 16 lower-case letters and digits, the first a letter")
	flags.StringVar(&o.ttlAfterExpired, "ttl-after-expired", o.ttlAfterExpired,
		"how long an expired ApiKey stays unless it says so itself: days, hours, minutes and seconds, such as 7d or 12h30m; 0s means at once")

	flags.BoolVar(&o.requireCatalogue, "require-catalogue", o.requireCatalogue,
		"issue no key while the cluster has no ApiRole; without it, any role may be named then")
	flags.BoolVar(&o.requirePolicy, "require-policy", o.requirePolicy,
		"issue no key while the cluster has no ApiKeyPolicy; without it, every key is allowed then")

	flags.IntVar(&o.workers, "workers", o.workers, "keys that are worked on at the same time")
	flags.Float32Var(&o.qps, "kube-api-qps", o.qps,
		"requests a second to the API server; 0 means no limit of ours, the API server's own priority and fairness apply")
	flags.IntVar(&o.burst, "kube-api-burst", o.burst, "requests at once above --kube-api-qps; without that, it has no meaning")

	flags.BoolVar(&o.leaderElect, "leader-elect", o.leaderElect, "of several replicas, let one at a time do the work")
	flags.StringVar(&o.leaderElectNamespace, "leader-elect-namespace", o.leaderElectNamespace,
		"namespace of the lease; needed outside of a cluster, else the pod's own")
	flags.DurationVar(&o.leaseDuration, "leader-elect-lease-duration", o.leaseDuration,
		"how long the others wait for a leader that is silent")
	flags.DurationVar(&o.renewDeadline, "leader-elect-renew-deadline", o.renewDeadline,
		"how long a leader tries to renew its lease before it gives up and exits")
	flags.DurationVar(&o.retryPeriod, "leader-elect-retry-period", o.retryPeriod, "how often the lease is tried for, and renewed")

	flags.StringVar(&o.metricsAddress, "metrics-bind-address", o.metricsAddress,
		"where metrics are served, over TLS, to those who may GET the URL /metrics; 0 means nowhere")
	flags.StringVar(&o.metricsCertDir, "metrics-cert-dir", o.metricsCertDir,
		"folder of tls.crt and tls.key for the metrics, read again when they change; without it, a self-signed certificate")
	flags.BoolVar(&o.metricPerKey, "expiry-metric-per-key", o.metricPerKey,
		"serve one gauge a key, with the time of its expiry; costs one series for each key in use")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", o.probeAddress,
		"where /healthz and /readyz are served; 0 means nowhere")

	o.Log.AddFlags(flags)
}

// validate returns everything that is wrong with the options, each with the flag's name, its value and what would be right.
func (o *options) validate(flags *pflag.FlagSet) error {
	var problems process.Problems
	wrong := problems.Add
	problems.Namespaces(flags, o.namespaces)
	if err := token.ValidatePrefix(o.tokenPrefix); err != nil {
		wrong("token-prefix", o.tokenPrefix, err.Error())
	}
	if _, err := expiry.ParseDuration(o.ttlAfterExpired); err != nil {
		wrong("ttl-after-expired", o.ttlAfterExpired, err.Error())
	}
	if o.workers < 1 || o.workers > maxWorkers {
		wrong("workers", o.workers, fmt.Sprintf("want 1 to %d", maxWorkers))
	}
	if o.qps < 0 {
		wrong("kube-api-qps", o.qps, "want 0 for no limit, or more")
	}
	if o.burst < 0 {
		wrong("kube-api-burst", o.burst, "want 0 or more")
	}
	if o.qps > 0 && o.burst < 1 {
		wrong("kube-api-burst", o.burst, "want 1 or more where --kube-api-qps limits the rate; twice that rate is usual")
	}
	if o.leaderElectNamespace != "" {
		problems.Namespace("leader-elect-namespace", o.leaderElectNamespace)
	}
	if o.leaseDuration <= o.renewDeadline {
		wrong("leader-elect-lease-duration", o.leaseDuration, fmt.Sprintf(
			"want more than --leader-elect-renew-deadline, %s, or two leaders can be at work at once", o.renewDeadline))
	}
	// client-go's leader election insists on the jitter between the two.
	if o.retryPeriod <= 0 || float64(o.renewDeadline) <= 1.2*float64(o.retryPeriod) {
		wrong("leader-elect-renew-deadline", o.renewDeadline, fmt.Sprintf(
			"want more than 1.2 times --leader-elect-retry-period, %s, which must be more than zero", o.retryPeriod))
	}
	problems.Address("metrics-bind-address", o.metricsAddress)
	problems.Address("health-probe-bind-address", o.probeAddress)
	if o.metricsCertDir != "" && o.metricsAddress == process.Off {
		wrong("metrics-cert-dir", o.metricsCertDir, "has no meaning with --metrics-bind-address=0")
	}
	o.Validate(&problems)
	return problems.Err()
}
