package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/controllers/recording"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
)

const (
	maxWorkers     = 256
	maxUsageWrites = 1000
)

type options struct {
	process.Cluster
	process.Log

	namespaces []string

	tokenPrefix     string
	ttlAfterExpired string
	minRotation     string

	requireCatalogue bool
	requirePolicy    bool

	usagePrecision time.Duration
	usageWrites    float64

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
		minRotation:     "1h",
		usagePrecision:  usage.DefaultPrecision,
		usageWrites:     recording.DefaultWrites,
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
		"namespaces whose keys are issued and expired; absent means all namespaces; if set, the status of ApiRoles does not count keys")

	flags.StringVar(&o.tokenPrefix, "token-prefix", o.tokenPrefix,
		"prefix of new tokens: 2 to 16 lower-case letters and digits that start with a letter")
	flags.StringVar(&o.ttlAfterExpired, "ttl-after-expired", o.ttlAfterExpired,
		"how long to keep expired ApiKeys without spec.ttlAfterExpired: days, hours, minutes and seconds, such as 7d or 12h30m; 0s deletes them at once")
	flags.StringVar(&o.minRotation, "min-rotation-every", o.minRotation,
		"least time between two rotations of a key by schedule: days, hours, minutes and seconds, at least 1s; a shorter spec.rotation.every counts as this")

	flags.BoolVar(&o.requireCatalogue, "require-catalogue", o.requireCatalogue,
		"issue no key while the cluster has no ApiRole; without this flag, keys may then have any role")
	flags.BoolVar(&o.requirePolicy, "require-policy", o.requirePolicy,
		"issue no key while the cluster has no ApiKeyPolicy; without this flag, every key is then allowed")

	flags.DurationVar(&o.usagePrecision, "usage-precision", o.usagePrecision,
		"how old status.lastUsedAt of a key in use may become before it is written again, 1s to 24h; set it to the verifier's --usage-precision")
	flags.Float64Var(&o.usageWrites, "usage-writes-per-second", o.usageWrites,
		"maximum writes of status.lastUsedAt per second, over all keys, up to 1000; 0 records no use")

	flags.IntVar(&o.workers, "workers", o.workers, "number of keys that each controller reconciles at the same time, 1 to 256")
	flags.Float32Var(&o.qps, "kube-api-qps", o.qps,
		"maximum requests per second to the API server; 0 means no client-side limit, only API Priority and Fairness")
	flags.IntVar(&o.burst, "kube-api-burst", o.burst, "maximum burst of requests above --kube-api-qps; ignored unless that is set")

	flags.BoolVar(&o.leaderElect, "leader-elect", o.leaderElect, "elect a leader among the replicas, so that only one of them works at a time")
	flags.StringVar(&o.leaderElectNamespace, "leader-elect-namespace", o.leaderElectNamespace,
		"namespace of the lease; absent means the namespace of the pod; required outside a cluster")
	flags.DurationVar(&o.leaseDuration, "leader-elect-lease-duration", o.leaseDuration,
		"how long other replicas wait after the leader's last renewal before they take over the lease")
	flags.DurationVar(&o.renewDeadline, "leader-elect-renew-deadline", o.renewDeadline,
		"how long the leader tries to renew its lease before it gives up and exits")
	flags.DurationVar(&o.retryPeriod, "leader-elect-retry-period", o.retryPeriod, "how often replicas try to acquire the lease, and the leader renews it")

	flags.StringVar(&o.metricsAddress, "metrics-bind-address", o.metricsAddress,
		"address on which metrics are served over TLS, to callers whose RBAC allows get on /metrics; 0 disables it")
	flags.StringVar(&o.metricsCertDir, "metrics-cert-dir", o.metricsCertDir,
		"directory with tls.crt and tls.key for the metrics, reloaded when they change; absent means a self-signed certificate")
	flags.BoolVar(&o.metricPerKey, "expiry-metric-per-key", o.metricPerKey,
		"export one series per issued key, with the time at which it expires")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", o.probeAddress,
		"address on which /healthz and /readyz are served; 0 disables it")

	o.Log.AddFlags(flags)
}

// validate returns all problems of the flags. Each names the flag, its value and what would be valid.
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
	if every, err := expiry.ParseDuration(o.minRotation); err != nil {
		wrong("min-rotation-every", o.minRotation, err.Error())
	} else if every == 0 {
		wrong("min-rotation-every", o.minRotation, "must be at least 1s")
	}
	problems.UsagePrecision(o.usagePrecision)
	if !(o.usageWrites >= 0 && o.usageWrites <= maxUsageWrites) { // also false for NaN
		wrong("usage-writes-per-second", o.usageWrites, fmt.Sprintf("must be 0 (record no use) to %d", maxUsageWrites))
	}
	if o.workers < 1 || o.workers > maxWorkers {
		wrong("workers", o.workers, fmt.Sprintf("must be 1 to %d", maxWorkers))
	}
	if o.qps < 0 {
		wrong("kube-api-qps", o.qps, "must be 0 (no limit) or more")
	}
	if o.burst < 0 {
		wrong("kube-api-burst", o.burst, "must be 0 or more")
	}
	if o.qps > 0 && o.burst < 1 {
		wrong("kube-api-burst", o.burst, "must be 1 or more if --kube-api-qps is set; twice that rate is usual")
	}
	if o.leaderElectNamespace != "" {
		problems.Namespace("leader-elect-namespace", o.leaderElectNamespace)
	}
	if o.leaseDuration <= o.renewDeadline {
		wrong("leader-elect-lease-duration", o.leaseDuration, fmt.Sprintf(
			"must be more than --leader-elect-renew-deadline (%s), or two leaders could be active at once", o.renewDeadline))
	}
	// client-go requires this factor between the two, because it adds jitter to the retry period.
	if o.retryPeriod <= 0 || float64(o.renewDeadline) <= 1.2*float64(o.retryPeriod) {
		wrong("leader-elect-renew-deadline", o.renewDeadline, fmt.Sprintf(
			"must be more than 1.2 times --leader-elect-retry-period (%s), which must be more than zero", o.retryPeriod))
	}
	problems.Address("metrics-bind-address", o.metricsAddress)
	problems.Address("health-probe-bind-address", o.probeAddress)
	if o.metricsCertDir != "" && o.metricsAddress == process.Off {
		wrong("metrics-cert-dir", o.metricsCertDir, "has no effect with --metrics-bind-address=0; remove one of the two")
	}
	o.Validate(&problems)
	return problems.Err()
}
