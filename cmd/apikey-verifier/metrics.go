package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/internal/callers"
	"github.com/apikey-operator/apikey-operator/internal/serve"
)

// listenForMetrics serves the metrics over TLS to callers whose RBAC allows get on /metrics. The listener of controller-runtime
// is not used because it does not limit connections and accepts headers of up to a megabyte. It returns the watcher of the
// certificate in --metrics-cert-dir, which the caller must start, or nil if the certificate is self-signed.
func (o *options) listenForMetrics(ctx context.Context, servers *serve.Servers, guard *callers.Guard) (*certwatcher.CertWatcher, error) {
	if o.metricsAddress == process.Off {
		return nil, nil //nolint:nilnil // without metrics there is no certificate
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", guard.Protect(promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})))
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	watcher, err := certificatesOf("metrics-cert-dir", o.metricsCertDir)
	switch {
	case err != nil:
		return nil, err
	case watcher != nil:
		secure.GetCertificate = watcher.GetCertificate
	default:
		pair, err := process.SelfSigned(time.Now())
		if err != nil {
			return nil, fmt.Errorf("certificate for the metrics: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	}
	return watcher, servers.HTTP(ctx, "metrics", o.metricsAddress, mux, secure)
}
