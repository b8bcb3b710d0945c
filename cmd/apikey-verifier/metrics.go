package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
	"github.com/apikey-operator/apikey-operator/internal/serve"
)

// listenForMetrics serves the metrics over TLS to those who may GET their path. It is controller-runtime's own filter, on a listener of
// ours: controller-runtime's has no bounds on connections, and takes a megabyte of headers on each. The certificate is that of
// --metrics-cert-dir, which is then returned to be followed, or one that this process makes for itself.
func (o *options) listenForMetrics(
	ctx context.Context, servers *serve.Servers, config *rest.Config, logger logr.Logger,
) (*certwatcher.CertWatcher, error) {
	if o.metricsAddress == process.Off {
		return nil, nil //nolint:nilnil // no metrics need no certificates
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
		pair, err := selfSigned()
		if err != nil {
			return nil, fmt.Errorf("make a certificate for the metrics: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	}
	return watcher, servers.HTTP(ctx, "metrics", o.metricsAddress, mux, secure)
}

func selfSigned() (tls.Certificate, error) {
	certificate, key, err := cert.GenerateSelfSignedCertKey("localhost", nil, nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certificate, key)
}
