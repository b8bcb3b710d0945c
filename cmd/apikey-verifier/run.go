package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/callers"
	"github.com/apikey-operator/apikey-operator/internal/feed"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/reporting"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/serve/extauthz"
	"github.com/apikey-operator/apikey-operator/internal/serve/forwardauth"
	"github.com/apikey-operator/apikey-operator/internal/serve/intake"
	"github.com/apikey-operator/apikey-operator/internal/serve/introspection"
	"github.com/apikey-operator/apikey-operator/internal/serve/tokenreview"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/internal/version"
)

const (
	component = "apikey-verifier"

	// gcPercent is how much the heap grows, relative to what is live, until garbage is collected. Nearly all that is live are keys,
	// and a request leaves little garbage, so less than the default of 100 saves memory and costs little.
	gcPercent = 75

	// minStaleness is twice the interval at which the API server sends bookmarks.
	minStaleness = 2 * time.Minute
)

// warn logs settings that are valid but rarely meant.
func (o *options) warn(s settings, logger logr.Logger) {
	if !o.requireScope && (len(s.http.Roles) == 0 || len(s.grpc.Roles) == 0) {
		logger.Info("Routes without roles and namespaces accept every valid key: remove --require-scope=false to refuse such routes, or " +
			"set --default-roles to give them roles")
	}
	if o.maxStaleness != 0 && o.maxStaleness < minStaleness {
		logger.Info("--max-staleness is too short: without changes the API server sends a bookmark about once a minute, and requests will be "+
			"refused as NotReady in between", "maxStaleness", o.maxStaleness.String())
	}
}

// run starts the verifier. It returns when ctx is canceled and all in-flight requests are answered.
func run(ctx context.Context, o *options, s settings, logger logr.Logger) error {
	config, err := o.Config(component)
	if err != nil {
		return err
	}
	process.SetGCPercent(gcPercent)
	started := time.Now()
	keys := index.New(started, index.Options{MaxStaleness: o.maxStaleness})
	loader, err := feed.NewLoader(config, keys, feed.Options{
		Namespaces: o.namespaces, Selector: s.selector, Logger: logger,
		Read: debug.FreeOSMemory, // otherwise a verifier holds for long what only its start took
	})
	if err != nil {
		return err
	}
	if err := metrics.Registry.Register(feed.NewCollector(loader)); err != nil {
		return err
	}
	observers := []serve.Observer{serve.NewMetrics(metrics.Registry), serve.NewLog(logger, o.logAllowed, metrics.Registry)}
	report := func(context.Context) {}
	if o.reportUsage {
		meter := usage.NewMeter(started)
		reporter, err := reporting.New(config, keys, meter, reporting.Options{Precision: o.usagePrecision, Logger: logger, Metrics: metrics.Registry})
		if err != nil {
			return err
		}
		observers = append(observers, serve.NewUsage(meter))
		report = reporter.Run
	}
	checker := serve.NewChecker(serve.Options{Keys: keys, Observers: observers})
	// Each has limits of its own, so that a flood of introspections keeps nobody from the metrics.
	putOff := callers.NewPutOff(metrics.Registry, monitoring.Verifier)
	introspecting, err := callers.New(config, callers.Options{Logger: logger, PutOff: putOff.WithLabelValues("introspection")})
	if err != nil {
		return fmt.Errorf("set up caller reviews: %w", err)
	}
	scraping, err := callers.New(config, callers.Options{Logger: logger, PutOff: putOff.WithLabelValues("metrics")})
	if err != nil {
		return fmt.Errorf("set up caller reviews: %w", err)
	}
	handler := httpHandler(o, s, checker, introspecting)
	// The parts that serve requests outlive ctx, so that the verifier can drain.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	servers := serve.NewServers(checker.Ready, intake.NewGate(serve.DefaultLimits(), metrics.Registry, logger, nil), logger)
	defer servers.Close()
	certificates, err := certificatesOf("tls-cert-dir", o.tlsCertDir)
	if err != nil {
		return err
	}
	if err := o.listen(ctx, servers, handler, extAuthz(o, s, checker), certificates); err != nil {
		return err
	}
	metricsCertificates, err := o.listenForMetrics(ctx, servers, scraping)
	if err != nil {
		return err
	}

	o.warn(s, logger)
	logger.Info("Starting", "version", version.String(), "server", config.Host)
	running.Go(func() { loader.Run(background) })
	running.Go(func() { report(background) })
	failed := make(chan error, 2)
	start := func(part func(context.Context) error) {
		running.Go(func() {
			if err := part(background); err != nil {
				failed <- err
			}
		})
	}
	for _, watcher := range []*certwatcher.CertWatcher{certificates, metricsCertificates} {
		if watcher != nil {
			start(watcher.Start)
		}
	}
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case err := <-failed:
			stop(err)
		case <-serving.Done():
		}
	}()
	err = servers.Run(serving, o.drainDelay, o.drainTimeout)
	if cause := context.Cause(serving); ctx.Err() == nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(err, cause)
	}
	logger.Info("Stopped")
	return err
}

func httpHandler(o *options, s settings, checker *serve.Checker, guard *callers.Guard) http.Handler {
	reader := verify.Reader{Prefixes: o.tokenPrefixes}
	mux := http.NewServeMux()
	handle := func(path, protocol string, handler func(*serve.Protocol) http.Handler) {
		p := checker.Protocol(protocol)
		mux.Handle(path, p.Recovering(handler(p)))
	}
	handle(forwardauth.Path, "forward-auth", func(p *serve.Protocol) http.Handler {
		return &forwardauth.Handler{
			Checker: p, Reader: reader, Defaults: s.http, AllRoles: o.forwardAllRoles, Attributes: s.attributes,
			Proxies: access.Proxies{Trusted: s.trusted, PeerIsClient: o.peerIsClient},
		}
	})
	handle(tokenreview.Path, "tokenreview", func(p *serve.Protocol) http.Handler {
		return &tokenreview.Handler{Checker: p, Reader: reader, Audiences: o.audiences}
	})
	// Introspection reveals what a token may do, so only callers whose RBAC allows post on its path may use it.
	p := checker.Protocol("introspection")
	mux.Handle(introspection.Path, p.Recovering(guard.Protect(&introspection.Handler{Checker: p, Reader: reader})))
	return mux
}

func extAuthz(o *options, s settings, checker *serve.Checker) *extauthz.Server {
	return &extauthz.Server{
		Checker: checker.Protocol("ext_authz"), Reader: verify.Reader{Prefixes: o.tokenPrefixes}, Defaults: s.grpc,
		Proxies:  access.Proxies{Trusted: s.trusted, PeerIsClient: true},
		AllRoles: o.forwardAllRoles, Attributes: s.attributes, KeepCredential: o.keepCredential,
	}
}

// certificatesOf returns a watcher of the certificate in the directory given by a flag, or nil if the flag is not set.
func certificatesOf(flag, dir string) (*certwatcher.CertWatcher, error) {
	if dir == "" {
		return nil, nil //nolint:nilnil // the flag is optional
	}
	watcher, err := certwatcher.New(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return nil, fmt.Errorf("--%s=%s: %w", flag, dir, err)
	}
	return watcher, nil
}

// listen opens all listeners.
func (o *options) listen(
	ctx context.Context, servers *serve.Servers, handler http.Handler, ext *extauthz.Server, certificates *certwatcher.CertWatcher,
) error {
	register := func(r grpc.ServiceRegistrar) { extauthz.Register(r, ext) }
	var secure *tls.Config
	if certificates != nil {
		secure = &tls.Config{GetCertificate: certificates.GetCertificate, MinVersion: tls.VersionTLS12}
	}
	probes := http.NewServeMux()
	probes.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	probes.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !servers.IsReady() {
			http.Error(w, "not ready: ApiKeys are not loaded or stale, or the verifier is shutting down", http.StatusServiceUnavailable)
		}
	})
	for _, l := range []struct {
		address string
		open    func(address string) error
	}{
		{o.httpAddress, func(a string) error { return servers.HTTP(ctx, "HTTP", a, handler, nil) }},
		{o.httpsAddress, func(a string) error { return servers.HTTP(ctx, "HTTPS", a, handler, secure) }},
		{o.grpcAddress, func(a string) error { return servers.GRPC(ctx, "gRPC", a, register, nil) }},
		{o.grpcTLSAddress, func(a string) error { return servers.GRPC(ctx, "gRPC over TLS", a, register, secure) }},
		{o.probeAddress, func(a string) error { return servers.HTTP(ctx, "probes", a, probes, nil) }},
	} {
		if l.address == process.Off {
			continue
		}
		if err := l.open(l.address); err != nil {
			return err
		}
	}
	return nil
}
