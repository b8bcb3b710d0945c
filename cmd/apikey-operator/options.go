package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrlzap "sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

const (
	off           = "0" // a listener's address that means none, as in controller-runtime
	formatJSON    = "json"
	formatConsole = "console"
	maxWorkers    = 256
)

type options struct {
	kubeconfig string

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

	logLevel  int
	logFormat string
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
		logFormat:       formatJSON,
	}
}

func (o *options) addFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false

	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig file; without it, KUBECONFIG or the pod's service account")

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

	flags.IntVar(&o.logLevel, "log-level", o.logLevel, "how much is logged: 0 for what an administrator reads, up to 10 for every request")
	flags.StringVar(&o.logFormat, "log-format", o.logFormat, "how it is logged: json or console")
}

// validate returns everything that is wrong with the options, each with the flag's name, its value and what would be right.
func (o *options) validate() error {
	var errs []error
	wrong := func(flag string, value any, want string) {
		errs = append(errs, fmt.Errorf("--%s=%v: %s", flag, value, want))
	}
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
		for _, problem := range validation.IsDNS1123Label(o.leaderElectNamespace) {
			wrong("leader-elect-namespace", o.leaderElectNamespace, problem)
		}
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
	o.validateListeners(wrong)
	if o.logLevel < 0 || o.logLevel > 10 {
		wrong("log-level", o.logLevel, "want 0 to 10")
	}
	if formats := []string{formatJSON, formatConsole}; !slices.Contains(formats, o.logFormat) {
		wrong("log-format", o.logFormat, "want "+strings.Join(formats, " or "))
	}
	return errors.Join(errs...)
}

func (o *options) validateListeners(wrong func(flag string, value any, want string)) {
	for flag, address := range map[string]string{"metrics-bind-address": o.metricsAddress, "health-probe-bind-address": o.probeAddress} {
		if address == off {
			continue
		}
		if _, err := net.ResolveTCPAddr("tcp", address); err != nil {
			wrong(flag, address, "want host:port, :port, or 0 for nowhere")
		}
	}
	if o.metricsCertDir != "" && o.metricsAddress == off {
		wrong("metrics-cert-dir", o.metricsCertDir, "has no meaning with --metrics-bind-address=0")
	}
}

func (o *options) logger(w io.Writer) logr.Logger {
	encoder := ctrlzap.JSONEncoder(func(c *zapcore.EncoderConfig) { c.EncodeTime = zapcore.RFC3339NanoTimeEncoder })
	if o.logFormat == formatConsole {
		encoder = ctrlzap.ConsoleEncoder()
	}
	// logr's levels are zap's, negated.
	level := zapcore.Level(-o.logLevel) //nolint:gosec // validated to be 0 to 10
	return ctrlzap.New(ctrlzap.WriteTo(w), encoder, ctrlzap.Level(level))
}
