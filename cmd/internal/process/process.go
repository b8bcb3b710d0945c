// Package process has what the commands share: the flags for logs and for the cluster, and how invalid flags are reported.
// Anything that only one command needs does not belong here.
package process

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlzap "sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/version"
)

// Off is the address that disables a listener, as in controller-runtime.
const Off = "0"

const (
	formatJSON    = "json"
	formatConsole = "console"
	maxLevel      = 10
)

// Problems collects invalid flags. Each problem names the flag, its value and what would be valid.
type Problems struct {
	errs []error
}

// Add reports that the value of a flag is invalid. want says what would be valid.
func (p *Problems) Add(flag string, value any, want string) {
	p.errs = append(p.errs, fmt.Errorf("--%s=%v: %s", flag, value, want))
}

// Address reports an invalid address of a listener.
func (p *Problems) Address(flag, address string) {
	if address == Off {
		return
	}
	if _, err := net.ResolveTCPAddr("tcp", address); err != nil {
		p.Add(flag, address, "must be host:port, :port, or 0 to disable it")
	}
}

// Namespaces reports invalid values of the flag --namespaces. An empty list is invalid: it must not mean all namespaces.
func (p *Problems) Namespaces(flags *pflag.FlagSet, namespaces []string) {
	const flag = "namespaces"
	if flags.Changed(flag) && len(namespaces) == 0 {
		p.Add(flag, "", "must name at least one namespace; for all namespaces, remove the flag")
	}
	for _, namespace := range namespaces {
		p.Namespace(flag, namespace)
	}
}

// Namespace reports a value that is not a valid name of a namespace.
func (p *Problems) Namespace(flag, namespace string) {
	if err := access.ValidateNamespace(namespace); err != nil {
		p.Add(flag, namespace, err.Error())
	}
}

// Bounds of --usage-precision.
const (
	minPrecision = time.Second
	maxPrecision = 24 * time.Hour
)

// UsagePrecision reports an invalid value of the flag --usage-precision.
func (p *Problems) UsagePrecision(precision time.Duration) {
	if precision < minPrecision || precision > maxPrecision {
		p.Add("usage-precision", precision, fmt.Sprintf("must be %s to %s", minPrecision, maxPrecision))
	}
}

// Err returns all problems, or nil if there are none.
func (p *Problems) Err() error { return errors.Join(p.errs...) }

// Log holds the flags for logs.
type Log struct {
	level  int
	format string
}

// AddFlags adds the flags to a flag set.
func (l *Log) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&l.level, "log-level", 0, "verbosity of the log, from 0 (messages for administrators) to 10 (everything)")
	flags.StringVar(&l.format, "log-format", formatJSON, "format of the log: json or console")
}

// Validate reports invalid flags to problems.
func (l *Log) Validate(problems *Problems) {
	if l.level < 0 || l.level > maxLevel {
		problems.Add("log-level", l.level, "must be 0 to 10")
	}
	if formats := []string{formatJSON, formatConsole}; !slices.Contains(formats, l.format) {
		problems.Add("log-format", l.format, "must be "+strings.Join(formats, " or "))
	}
}

// Start creates the process's logger, which writes to w. It also sets the loggers of controller-runtime and client-go, so
// that all output has one format.
func (l *Log) Start(w io.Writer) logr.Logger {
	encoder := ctrlzap.JSONEncoder(func(c *zapcore.EncoderConfig) { c.EncodeTime = zapcore.RFC3339NanoTimeEncoder })
	if l.format == formatConsole {
		encoder = ctrlzap.ConsoleEncoder()
	}
	// logr's levels are zap's, negated.
	level := zapcore.Level(-l.level) //nolint:gosec // validated to be 0 to 10
	logger := ctrlzap.New(ctrlzap.WriteTo(w), encoder, ctrlzap.Level(level))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	return logger
}

// Cluster holds the flag that selects the cluster.
type Cluster struct {
	kubeconfig string
}

// AddFlags adds the flag to a flag set.
func (c *Cluster) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "path of a kubeconfig file; absent means KUBECONFIG or the pod's service account")
}

// Config returns a configuration for the cluster. It disables the client-side rate limit: API Priority and Fairness applies.
func (c *Cluster) Config(component string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	// The loader falls back to the pod's service account.
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find a cluster: %w; set --kubeconfig or KUBECONFIG, or run in a pod", err)
	}
	config.UserAgent = component + "/" + version.String()
	config.QPS = -1
	return config, nil
}

// SetGCPercent sets how much the heap grows, relative to what is live, until garbage is collected. The environment variable GOGC takes
// precedence.
func SetGCPercent(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// namespaceFile has the namespace of the pod, in every pod that has a service account.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// PodNamespace returns the namespace of the pod that this process runs in: the environment variable POD_NAMESPACE or, without it,
// that of the service account. It returns "" outside of a pod.
func PodNamespace() string {
	if namespace := os.Getenv("POD_NAMESPACE"); namespace != "" {
		return namespace
	}
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
