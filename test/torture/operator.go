package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlzap "sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/apikey-operator/apikey-operator/internal/clockskew"
	"github.com/apikey-operator/apikey-operator/internal/operator"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// jumpingClock is a clock that can be set. Its timers do not jump, like those of a real clock.
type jumpingClock struct {
	clock.RealClock
	offset atomic.Int64
}

// Now implements [clock.PassiveClock].
func (c *jumpingClock) Now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// Since implements [clock.PassiveClock].
func (c *jumpingClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// follow sets the clock to each offset that is read, until there are no more.
func (c *jumpingClock) follow(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if offset, err := time.ParseDuration(lines.Text()); err == nil {
			c.offset.Store(int64(offset))
		}
	}
}

// operate runs the operator's own controllers until the context ends, with a clock that follows standard input, and with a defect if one is
// named.
func operate(ctx context.Context, kubeconfig string, defect plantedDefect) error {
	logger := ctrlzap.New(ctrlzap.WriteTo(os.Stderr), ctrlzap.Level(zapcore.Level(-logLevel)))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	config.Wrap(defect.faultyClient)
	options := operator.ManagerOptions(nil)
	options.Metrics = metricsserver.Options{BindAddress: "0"}
	options.LeaderElection = true
	options.LeaderElectionID = leaseName
	options.LeaderElectionNamespace = controlplane.Namespace
	lease, renew, retry := leaseDuration, renewDeadline, retryPeriod
	options.LeaseDuration, options.RenewDeadline, options.RetryPeriod = &lease, &renew, &retry
	options.LeaderElectionReleaseOnCancel = true
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return err
	}
	now := &jumpingClock{}
	if defect == trustingOperator {
		now.offset.Store(int64(26 * time.Hour))
	}
	go now.follow(os.Stdin)
	rules, err := rulebook.New(mgr, rulebook.Options{})
	if err != nil {
		return err
	}
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return err
	}
	meter := clockskew.NewMeter(mgr.GetHTTPClient(), server.JoinPath("version").String())
	controllers := operator.New(operator.Parts{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Rules: rules, Recorder: mgr.GetEventRecorder("apikey-operator"),
		Registry: prometheus.NewRegistry(), Clock: now, TokenPrefix: "ak", TTLAfterExpired: time.Hour, CountDelay: time.Second,
		Namespace: controlplane.Namespace, UsagePrecision: usagePrecision, UsageWrites: usageWrites,
		Skew: func(ctx context.Context) (time.Duration, error) {
			skew, err := meter.Skew(ctx)
			if defect == trustingOperator {
				return 0, err
			}
			return skew + time.Duration(now.offset.Load()), err
		},
	})
	if err := controllers.SetupWithManager(mgr, operator.Options{Workers: 16}); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements [http.RoundTripper].
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// faultyClient is the client of an operator with a defect.
func (d plantedDefect) faultyClient(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		isSecret := strings.Contains(r.URL.Path, "/secrets")
		switch {
		case d == hoardingOperator && isSecret && r.Method == http.MethodDelete:
			return answer(r, `{"kind":"Status","apiVersion":"v1","status":"Success"}`), nil
		case d == talkativeOperator && isSecret && r.Method == http.MethodPost:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			klog.Info("creating a Secret: ", base64.StdEncoding.EncodeToString(body))
		}
		return next.RoundTrip(r)
	})
}

func answer(r *http.Request, body string) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}
