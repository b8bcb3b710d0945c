package main

import (
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/serve/tokenreview"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

type options struct {
	process.Cluster
	process.Log

	namespaces   []string
	selector     string
	maxStaleness time.Duration

	tokenPrefixes []string

	trustedProxies []string
	peerIsClient   bool

	defaultRoles     []string
	grpcDefaultRoles []string
	requireScope     bool

	forwardAllRoles bool
	keepCredential  bool
	audiences       []string

	httpAddress    string
	grpcAddress    string
	httpsAddress   string
	grpcTLSAddress string
	tlsCertDir     string
	metricsAddress string
	metricsCertDir string
	probeAddress   string

	drainDelay   time.Duration
	drainTimeout time.Duration

	logAllowed bool
}

// settings are the options that need more than a look.
type settings struct {
	selector labels.Selector
	trusted  access.Networks
	http     verify.Defaults
	grpc     verify.Defaults
}

func (o *options) addFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false

	o.Cluster.AddFlags(flags)
	flags.StringSliceVar(&o.namespaces, "namespaces", nil, "namespaces whose keys are accepted; absent means all")
	flags.StringVar(&o.selector, "selector", "", "labels of the keys that are accepted, such as tier=public; absent means all")
	flags.DurationVar(&o.maxStaleness, "max-staleness", 10*time.Minute,
		"how long keys are accepted without a word from the API server, which speaks about once a minute; then they are refused as NotReady, with --namespaces those of each that is silent; 0 means for ever")

	flags.StringSliceVar(&o.tokenPrefixes, "token-prefixes", []string{token.DefaultPrefix},
		"prefixes of the tokens that are accepted; more than one while the operator's --token-prefix changes")

	flags.StringSliceVar(&o.trustedProxies, "trusted-proxies", nil,
		"addresses of the gateways whose X-Forwarded-For is believed, such as 10.0.7.16/28, and never a network that clients are in; absent means none, and then keys with CIDRs are refused over forward-auth")
	flags.BoolVar(&o.peerIsClient, "peer-is-client", false,
		"over forward-auth, take the caller for the client unless it is a trusted proxy: only where clients call the verifier themselves")

	flags.StringSliceVar(&o.defaultRoles, "default-roles", nil,
		"roles that every request needs over forward-auth and ext_authz, beside those that its route names")
	flags.StringSliceVar(&o.grpcDefaultRoles, "grpc-default-roles", nil, "in place of --default-roles over ext_authz")
	flags.BoolVar(&o.requireScope, "require-scope", false,
		"refuse, as BadRoute, what a route asks for that names neither a role nor a namespace; without it any live key opens such a route")

	flags.BoolVar(&o.forwardAllRoles, "forward-all-roles", false,
		"hand all roles of a key on in X-Apikey-Roles, not only those that the route asked for; 256 long names overflow a proxy's buffers")
	flags.BoolVar(&o.keepCredential, "keep-credential", false, "over ext_authz, leave the token in the request to the upstream")
	flags.StringSliceVar(&o.audiences, "audiences", tokenreview.DefaultAudiences,
		"audiences that a TokenReview may ask for: the API server's --api-audiences, by default its issuer")

	flags.StringVar(&o.httpAddress, "http-bind-address", ":8080", "where HTTP is served without TLS; 0 means nowhere")
	flags.StringVar(&o.grpcAddress, "grpc-bind-address", ":9001", "where gRPC is served without TLS; 0 means nowhere")
	flags.StringVar(&o.httpsAddress, "https-bind-address", process.Off, "where HTTP is served with TLS; 0 means nowhere")
	flags.StringVar(&o.grpcTLSAddress, "grpc-tls-bind-address", process.Off, "where gRPC is served with TLS; 0 means nowhere")
	flags.StringVar(&o.tlsCertDir, "tls-cert-dir", "", "folder of tls.crt and tls.key for the two, read again when they change")
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443",
		"where metrics are served, over TLS, to those who may GET the URL /metrics; 0 means nowhere")
	flags.StringVar(&o.metricsCertDir, "metrics-cert-dir", "",
		"folder of tls.crt and tls.key for the metrics, read again when they change; without it, a self-signed certificate")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "where /healthz and /readyz are served; 0 means nowhere")

	flags.DurationVar(&o.drainDelay, "drain-delay", 5*time.Second,
		"after SIGTERM, how long requests are still taken while /readyz and gRPC health say no, until everybody has heard")
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 20*time.Second, "after that, how long requests in hand may take to end")

	o.Log.AddFlags(flags)
	flags.BoolVar(&o.logAllowed, "log-allowed", false, "log requests that are let in, too, a line for each")
}

// settings returns the options as they are used, or everything that is wrong with them.
func (o *options) settings(flags *pflag.FlagSet) (settings, error) {
	var s settings
	var problems process.Problems
	problems.Namespaces(flags, o.namespaces)
	var err error
	if s.selector, err = labels.Parse(o.selector); err != nil {
		problems.Add("selector", o.selector, err.Error())
	}
	if o.maxStaleness < 0 {
		problems.Add("max-staleness", o.maxStaleness, "want 0 for any age, or more")
	}
	if len(o.tokenPrefixes) == 0 {
		problems.Add("token-prefixes", "", "want at least one, such as "+token.DefaultPrefix)
	}
	for _, prefix := range o.tokenPrefixes {
		if err := token.ValidatePrefix(prefix); err != nil {
			problems.Add("token-prefixes", prefix, err.Error())
		}
	}
	if s.trusted, err = access.ParseProxies(o.trustedProxies); err != nil {
		problems.Add("trusted-proxies", o.trustedProxies, err.Error())
	}
	s.http = o.defaults(&problems, "default-roles", o.defaultRoles)
	s.grpc = s.http
	if len(o.grpcDefaultRoles) > 0 {
		s.grpc = o.defaults(&problems, "grpc-default-roles", o.grpcDefaultRoles)
	}
	o.validateListeners(&problems)
	for flag, value := range map[string]time.Duration{"drain-delay": o.drainDelay, "drain-timeout": o.drainTimeout} {
		if value < 0 {
			problems.Add(flag, value, "want 0 or more")
		}
	}
	o.Validate(&problems)
	return s, problems.Err()
}

func (o *options) defaults(problems *process.Problems, flag string, roles []string) verify.Defaults {
	if route := verify.NewRoute(roles, nil); route.Problem != "" {
		problems.Add(flag, roles, route.Problem)
	}
	return verify.Defaults{Roles: roles, RequireScope: o.requireScope}
}

func (o *options) validateListeners(problems *process.Problems) {
	for flag, address := range map[string]string{
		"http-bind-address": o.httpAddress, "grpc-bind-address": o.grpcAddress,
		"metrics-bind-address": o.metricsAddress, "health-probe-bind-address": o.probeAddress,
	} {
		problems.Address(flag, address)
	}
	for flag, address := range map[string]string{"https-bind-address": o.httpsAddress, "grpc-tls-bind-address": o.grpcTLSAddress} {
		problems.Address(flag, address)
		if address != process.Off && o.tlsCertDir == "" {
			problems.Add(flag, address, "needs --tls-cert-dir")
		}
	}
	if o.tlsCertDir != "" && o.httpsAddress == process.Off && o.grpcTLSAddress == process.Off {
		problems.Add("tls-cert-dir", o.tlsCertDir, "has no meaning without --https-bind-address or --grpc-tls-bind-address")
	}
	if o.metricsCertDir != "" && o.metricsAddress == process.Off {
		problems.Add("metrics-cert-dir", o.metricsCertDir, "has no meaning with --metrics-bind-address=0")
	}
	if o.httpAddress == process.Off && o.grpcAddress == process.Off && o.httpsAddress == process.Off && o.grpcTLSAddress == process.Off {
		problems.Add("http-bind-address", o.httpAddress, "no gateway can ask: all of the listeners are 0")
	}
}
