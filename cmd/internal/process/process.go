// Package process is what the binaries have in common: the flags for logs and for the cluster, and how a wrong flag is told of; nothing that
// one of them alone does belongs here.
package process

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

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

// Off is a listener's address that means none, as in controller-runtime.
const Off = "0"

const (
	formatJSON    = "json"
	formatConsole = "console"
	maxLevel      = 10
)

// Problems collects what is wrong with flags, each with the flag's name, its value and what would be right.
type Problems struct {
	errs []error
}

// Add notes that a flag is wrong.
func (p *Problems) Add(flag string, value any, want string) {
	p.errs = append(p.errs, fmt.Errorf("--%s=%v: %s", flag, value, want))
}

// Address notes a listener's address that is none.
func (p *Problems) Address(flag, address string) {
	if address == Off {
		return
	}
	if _, err := net.ResolveTCPAddr("tcp", address); err != nil {
		p.Add(flag, address, "want host:port, :port, or 0 for nowhere")
	}
}

// Namespaces notes what is wrong with the flag --namespaces. A list that is there and empty must not pass for all namespaces.
func (p *Problems) Namespaces(flags *pflag.FlagSet, namespaces []string) {
	const flag = "namespaces"
	if flags.Changed(flag) && len(namespaces) == 0 {
		p.Add(flag, "", "leave the flag out for all namespaces, or name at least one")
	}
	for _, namespace := range namespaces {
		p.Namespace(flag, namespace)
	}
}

// Namespace notes a flag's value that can't be the name of a namespace.
func (p *Problems) Namespace(flag, namespace string) {
	if err := access.ValidateNamespace(namespace); err != nil {
		p.Add(flag, namespace, err.Error())
	}
}

// Err is all that is wrong, or nil.
func (p *Problems) Err() error { return errors.Join(p.errs...) }

// Log are the flags for logs.
type Log struct {
	level  int
	format string
}

// AddFlags adds the flags, with their defaults.
func (l *Log) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&l.level, "log-level", 0, "how much is logged: 0 for what an administrator reads, up to 10 for all that there is")
	flags.StringVar(&l.format, "log-format", formatJSON, "how it is logged: json or console")
}

// Validate notes what is wrong with the flags.
func (l *Log) Validate(problems *Problems) {
	if l.level < 0 || l.level > maxLevel {
		problems.Add("log-level", l.level, "want 0 to 10")
	}
	if formats := []string{formatJSON, formatConsole}; !slices.Contains(formats, l.format) {
		problems.Add("log-format", l.format, "want "+strings.Join(formats, " or "))
	}
}

// Start returns the process's logger, and gives it to controller-runtime and client-go, so that all of the output has one form.
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

// Cluster is the flag for the cluster to talk to.
type Cluster struct {
	kubeconfig string
}

// AddFlags adds the flag.
func (c *Cluster) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file; without it, KUBECONFIG or the pod's service account")
}

// Config is a connection to the cluster, without a limit of requests on this side: the API server's own priority and fairness
// apply.
func (c *Cluster) Config(component string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	// Falls back to the pod's service account by itself.
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster to talk to: %w; set --kubeconfig or KUBECONFIG, or run in a pod", err)
	}
	config.UserAgent = component + "/" + version.String()
	config.QPS = -1
	return config, nil
}
