package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/callers"
	"github.com/apikey-operator/apikey-operator/internal/feed"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/serve/extauthz"
	"github.com/apikey-operator/apikey-operator/internal/serve/forwardauth"
	"github.com/apikey-operator/apikey-operator/internal/serve/intake"
	"github.com/apikey-operator/apikey-operator/internal/serve/introspection"
	"github.com/apikey-operator/apikey-operator/internal/serve/tokenreview"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/internal/version"
)

const (
	component = "apikey-verifier"

	// Twice the time between the bookmarks that an API server sends.
	leastStaleness = 2 * time.Minute
)

// run wires the verifier together, and returns when the context has ended and all requests in hand are answered.
func run(ctx context.Context, o *options, s settings, logger logr.Logger) error {
	config, err := o.Config(component)
	if err != nil {
		return err
	}
	keys := index.New(time.Now(), index.Options{MaxStaleness: o.maxStaleness})
	loader, err := feed.NewLoader(config, keys, feed.Options{Namespaces: o.namespaces, Selector: s.selector, Logger: logger})
	if err != nil {
		return err
	}
	if err := metrics.Registry.Register(feed.NewCollector(loader)); err != nil {
		return err
	}
	checker := serve.NewChecker(serve.Options{Keys: keys, Observers: []serve.Observer{
		serve.NewMetrics(metrics.Registry), serve.NewLog(logger, o.logAllowed, metrics.Registry),
	}})
	handler, err := httpHandler(config, o, s, checker, logger)
	if err != nil {
		return err
	}
	// What serves requests outlives the context, and ends in order.
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
	metricsCertificates, err := o.listenForMetrics(ctx, servers, config, logger)
	if err != nil {
		return err
	}

	if !o.requireScope && (len(s.http.Roles) == 0 || len(s.grpc.Roles) == 0) {
		logger.Info("a route that asks for no role and pins no namespace accepts any live key: " +
			"--require-scope refuses such routes, --default-roles gives them roles")
	}
	if o.maxStaleness != 0 && o.maxStaleness < leastStaleness {
		logger.Info("--max-staleness is shorter than the API server may be silent: when nothing changes it speaks about once a minute, "+
			"and in between everything will be refused as NotReady", "maxStaleness", o.maxStaleness.String())
	}
	logger.Info("starting", "version", version.String(), "server", config.Host)
	running.Go(func() { loader.Run(background) })
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
	logger.Info("stopped")
	return err
}

func httpHandler(config *rest.Config, o *options, s settings, checker *serve.Checker, logger logr.Logger) (http.Handler, error) {
	reader := verify.Reader{Prefixes: o.tokenPrefixes}
	mux := http.NewServeMux()
	handle := func(path, protocol string, handler func(*serve.Protocol) http.Handler) {
		p := checker.Protocol(protocol)
		mux.Handle(path, p.Recovering(handler(p)))
	}
	handle(forwardauth.Path, "forward-auth", func(p *serve.Protocol) http.Handler {
		return &forwardauth.Handler{
			Checker: p, Reader: reader, Defaults: s.http, AllRoles: o.forwardAllRoles,
			Proxies: access.Proxies{Trusted: s.trusted, PeerIsClient: o.peerIsClient},
		}
	})
	handle(tokenreview.Path, "tokenreview", func(p *serve.Protocol) http.Handler {
		return &tokenreview.Handler{Checker: p, Reader: reader, Audiences: o.audiences}
	})
	// Whoever may ask learns what a token is good for: that is for those who may POST this path.
	guard, err := callers.New(config, callers.Options{Logger: logger, Metrics: metrics.Registry})
	if err != nil {
		return nil, fmt.Errorf("set up the reviews of callers: %w", err)
	}
	p := checker.Protocol("introspection")
	mux.Handle(introspection.Path, p.Recovering(guard.Protect(&introspection.Handler{Checker: p, Reader: reader})))
	return mux, nil
}

func extAuthz(o *options, s settings, checker *serve.Checker) *extauthz.Server {
	return &extauthz.Server{
		Checker: checker.Protocol("ext_authz"), Reader: verify.Reader{Prefixes: o.tokenPrefixes}, Defaults: s.grpc,
		Proxies:  access.Proxies{Trusted: s.trusted, PeerIsClient: true},
		AllRoles: o.forwardAllRoles, KeepCredential: o.keepCredential,
	}
}

// certificatesOf are the pair in a flag's folder, followed as it changes; nil where there is no folder.
func certificatesOf(flag, folder string) (*certwatcher.CertWatcher, error) {
	if folder == "" {
		return nil, nil //nolint:nilnil // none is no failure
	}
	watcher, err := certwatcher.New(filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
	if err != nil {
		return nil, fmt.Errorf("--%s=%s: %w", flag, folder, err)
	}
	return watcher, nil
}

// listen opens all of the listeners.
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
			http.Error(w, "the ApiKeys have not been loaded, or are out of date, or the process is ending", http.StatusServiceUnavailable)
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
