package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/internal/serve"
)

// listenForMetrics serves the metrics over TLS to callers whose RBAC allows get on /metrics. It uses the filter of
// controller-runtime on a listener of package serve, because the listener of controller-runtime does not limit connections
// and accepts headers of up to a megabyte. It returns the watcher of the certificate in --metrics-cert-dir, which the caller
// must start, or nil if the certificate is self-signed.
func (o *options) listenForMetrics(
	ctx context.Context, servers *serve.Servers, config *rest.Config, logger logr.Logger,
) (*certwatcher.CertWatcher, error) {
	if o.metricsAddress == process.Off {
		return nil, nil //nolint:nilnil // without metrics there is no certificate
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	filter, err := filters.WithAuthenticationAndAuthorization(config, client)
	if err != nil {
		return nil, fmt.Errorf("set up the metrics: %w", err)
	}
	handler, err := filter(logger, promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	if err != nil {
		return nil, fmt.Errorf("set up the metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", handler)
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
