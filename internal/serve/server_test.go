package serve_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/serve/intake"
)

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func newServers(ready func() bool) *serve.Servers {
	return serve.NewServers(ready, intake.NewGate(serve.DefaultLimits(), prometheus.NewRegistry(), logr.Discard(), nil), logr.Discard())
}

func dial(t *testing.T, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// grace is longer than a test may take, so a test that needed it would time out.
const grace = time.Hour

func TestOpenHealthWatchDoesNotDelayShutdown(t *testing.T) {
	var ready atomic.Bool
	servers := newServers(ready.Load)
	address := freeAddress(t)
	if err := servers.GRPC(t.Context(), "gRPC", address, func(grpc.ServiceRegistrar) {}, nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- servers.Run(ctx, 0, grace) }()
	watch, err := healthv1.NewHealthClient(dial(t, address)).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if answer, err := watch.Recv(); err != nil || answer.GetStatus() != want {
			t.Fatalf("health is %v, error %v; want %s", answer.GetStatus(), err, want)
		}
	}
	expect(healthv1.HealthCheckResponse_NOT_SERVING)
	ready.Store(true)
	expect(healthv1.HealthCheckResponse_SERVING)
	ready.Store(false)
	expect(healthv1.HealthCheckResponse_NOT_SERVING)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDrainWaitsForInFlightRequests(t *testing.T) {
	servers := newServers(func() bool { return true })
	entered, release := make(chan struct{}), make(chan struct{})
	address := freeAddress(t)
	if err := servers.HTTP(t.Context(), "HTTP", address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		w.WriteHeader(http.StatusTeapot)
	}), nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- servers.Run(ctx, 0, grace) }()
	answered := make(chan int, 1)
	go func() {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil)
		if err != nil {
			answered <- 0
			return
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			answered <- 0
			return
		}
		_ = response.Body.Close()
		answered <- response.StatusCode
	}()
	<-entered
	if !servers.IsReady() {
		t.Error("not ready while serving")
	}
	stop()
	for servers.IsReady() { // until draining begins
		select {
		case err := <-ended:
			t.Fatalf("Run returned with a request in flight: %v", err)
		default:
		}
	}
	close(release)
	if status := <-answered; status != http.StatusTeapot {
		t.Errorf("the in-flight request got status %d, want %d", status, http.StatusTeapot)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPortInUseIsAnError(t *testing.T) {
	servers := newServers(func() bool { return true })
	address := freeAddress(t)
	if err := servers.HTTP(t.Context(), "HTTP", address, http.NotFoundHandler(), nil); err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	err := servers.HTTP(t.Context(), "probes", address, http.NotFoundHandler(), nil)
	if err == nil || !strings.Contains(err.Error(), "probes") || !strings.Contains(err.Error(), address) {
		t.Errorf("error %v, want one that names the listener and its address", err)
	}
}
