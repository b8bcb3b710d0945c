package main

import (
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/serve/tokenreview"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
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

	forwardAllRoles   bool
	forwardAttributes []string
	keepCredential    bool
	audiences         []string

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

	reportUsage    bool
	usagePrecision time.Duration
}

// settings are the options that must be parsed.
type settings struct {
	selector labels.Selector
	trusted  access.Networks
	http     verify.Defaults
	grpc     verify.Defaults
	// attributes are sent to the upstream in headers.
	attributes []serve.AttributeHeader
}

func (o *options) addFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false

	o.Cluster.AddFlags(flags)
	flags.StringSliceVar(&o.namespaces, "namespaces", nil, "namespaces whose keys are accepted; absent means all namespaces")
	flags.StringVar(&o.selector, "selector", "", "label selector of the keys that are accepted, such as tier=public; absent means all keys")
	flags.DurationVar(&o.maxStaleness, "max-staleness", 10*time.Minute,
		"how long keys are accepted without news from the API server, which sends some about once a minute; after that, requests are refused as NotReady, with --namespaces only for keys in the namespaces concerned; 0 means no limit")

	flags.StringSliceVar(&o.tokenPrefixes, "token-prefixes", []string{token.DefaultPrefix},
		"prefixes of the tokens that are accepted; list several while you change the operator's --token-prefix")

	flags.StringSliceVar(&o.trustedProxies, "trusted-proxies", nil,
		"networks of the gateways whose X-Forwarded-For is trusted, such as 10.0.7.16/28; must not contain clients; absent means none, so that keys with cidrs are refused over forward-auth")
	flags.BoolVar(&o.peerIsClient, "peer-is-client", false,
		"over forward-auth, use the peer address as the client address unless the peer is a trusted proxy; set it only if clients call the verifier themselves")

	flags.StringSliceVar(&o.defaultRoles, "default-roles", nil,
		"roles that every request over forward-auth and ext_authz requires, in addition to those of its route")
	flags.StringSliceVar(&o.grpcDefaultRoles, "grpc-default-roles", nil, "roles that replace --default-roles over ext_authz")
	flags.BoolVar(&o.requireScope, "require-scope", true,
		"refuse requests as BadRoute if their route requires neither a role nor a namespace; if false, such a route accepts every valid key")

	flags.BoolVar(&o.forwardAllRoles, "forward-all-roles", false,
		"send all roles of a key in X-Apikey-Roles, not only those that the route requires; many long names can overflow a proxy's buffers")
	flags.StringSliceVar(&o.forwardAttributes, "forward-attributes", nil,
		"attributes of a key that the upstream receives over forward-auth and ext_authz, in headers such as X-Apikey-Attribute-Owner for owner; - for a key that lacks the attribute")
	flags.BoolVar(&o.keepCredential, "keep-credential", false, "over ext_authz, do not remove the token from the request to the upstream")
	flags.StringSliceVar(&o.audiences, "audiences", tokenreview.DefaultAudiences,
		"audiences that a TokenReview may request; set it to the API server's --api-audiences, which defaults to its issuer")

	flags.StringVar(&o.httpAddress, "http-bind-address", ":8080", "address on which HTTP is served without TLS; 0 disables it")
	flags.StringVar(&o.grpcAddress, "grpc-bind-address", ":9001", "address on which gRPC is served without TLS; 0 disables it")
	flags.StringVar(&o.httpsAddress, "https-bind-address", process.Off, "address on which HTTP is served with TLS; 0 disables it")
	flags.StringVar(&o.grpcTLSAddress, "grpc-tls-bind-address", process.Off, "address on which gRPC is served with TLS; 0 disables it")
	flags.StringVar(&o.tlsCertDir, "tls-cert-dir", "", "directory with tls.crt and tls.key for HTTP and gRPC with TLS, reloaded when they change")
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443",
		"address on which metrics are served over TLS, to callers whose RBAC allows get on /metrics; 0 disables it")
	flags.StringVar(&o.metricsCertDir, "metrics-cert-dir", "",
		"directory with tls.crt and tls.key for the metrics, reloaded when they change; absent means a self-signed certificate")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address on which /healthz and /readyz are served; 0 disables it")

	flags.DurationVar(&o.drainDelay, "drain-delay", 5*time.Second,
		"how long new requests are still accepted after SIGTERM, while /readyz and gRPC health report not ready, so that gateways notice")
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 20*time.Second, "how long in-flight requests may take to finish after --drain-delay")

	flags.BoolVar(&o.reportUsage, "report-usage", true,
		"report which keys are used by an ApiKeyUsage, so that the operator records when each key was last used; if false, the use of keys is not seen")
	flags.DurationVar(&o.usagePrecision, "usage-precision", usage.DefaultPrecision,
		"how old the recorded use of a key may become before a later one is reported, 1s to 24h; set it to the operator's --usage-precision")

	o.Log.AddFlags(flags)
	flags.BoolVar(&o.logAllowed, "log-allowed", false, "log allowed requests too, one line each")
}

// settings parses the options. The error contains all problems.
func (o *options) settings(flags *pflag.FlagSet) (settings, error) {
	var s settings
	var problems process.Problems
	problems.Namespaces(flags, o.namespaces)
	var err error
	if s.selector, err = labels.Parse(o.selector); err != nil {
		problems.Add("selector", o.selector, err.Error())
	}
	if o.maxStaleness < 0 {
		problems.Add("max-staleness", o.maxStaleness, "must be 0 (no limit) or more")
	}
	if len(o.tokenPrefixes) == 0 {
		problems.Add("token-prefixes", "", "must name at least one prefix, such as "+token.DefaultPrefix)
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
	if s.attributes, err = serve.NewAttributeHeaders(o.forwardAttributes); err != nil {
		problems.Add("forward-attributes", o.forwardAttributes, err.Error())
	}
	o.validateListeners(&problems)
	for flag, value := range map[string]time.Duration{"drain-delay": o.drainDelay, "drain-timeout": o.drainTimeout} {
		if value < 0 {
			problems.Add(flag, value, "must be 0 or more")
		}
	}
	problems.UsagePrecision(o.usagePrecision)
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
			problems.Add(flag, address, "requires --tls-cert-dir")
		}
	}
	if o.tlsCertDir != "" && o.httpsAddress == process.Off && o.grpcTLSAddress == process.Off {
		problems.Add("tls-cert-dir", o.tlsCertDir, "has no effect without --https-bind-address or --grpc-tls-bind-address; set one of them")
	}
	if o.metricsCertDir != "" && o.metricsAddress == process.Off {
		problems.Add("metrics-cert-dir", o.metricsCertDir, "has no effect with --metrics-bind-address=0; remove one of the two")
	}
	if o.httpAddress == process.Off && o.grpcAddress == process.Off && o.httpsAddress == process.Off && o.grpcTLSAddress == process.Off {
		problems.Add("http-bind-address", o.httpAddress, "no gateway can connect because all listeners are disabled; set at least one address")
	}
}
