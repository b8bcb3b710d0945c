package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/apikey-operator/apikey-operator/internal/serve/intake"
)

// Limits of every listener.
const (
	// maxHeader is more than the proxies in front let pass, so that a client's header gets an answer of ours (401) and not
	// one of net/http (431), which nginx makes a 500 of. Envoy puts some of the client's headers into those of its call, too: tracestate.
	maxHeader = 128 << 10
	// maxStreams bounds the calls that are under way on one connection. Gateways open another connection when they need more.
	maxStreams = 256

	// headTimeout bounds how long a request, or a handshake, may take to arrive.
	headTimeout = 10 * time.Second
	callTimeout = 30 * time.Second
	// idleTimeout is longer than the proxies' own, so that a connection is never closed under a request that is on its way.
	idleTimeout = 5 * time.Minute

	// gRPC connections end after a while, by GOAWAY and with their calls answered, so that gateways spread over replicas that are new.
	maxAge      = time.Hour
	maxAgeGrace = time.Minute
	// pingInterval and pingTimeout find connections whose peer is gone.
	pingInterval = time.Minute
	pingTimeout  = 20 * time.Second

	healthInterval = 100 * time.Millisecond
)

// DefaultLimits bound what a process holds of requests that have not arrived in full. An honest gateway's arrive in one go, so that its
// share of an address's bytes is next to nothing.
func DefaultLimits() intake.Limits {
	return intake.Limits{Bytes: 96 << 20, BytesPerAddress: 32 << 20, Message: headTimeout}
}

// Capacities of the listeners: a gRPC connection takes up to 100 KiB, one of HTTP about 20 KiB.
var (
	capacityGRPC = intake.Capacity{Connections: 1024, PerAddress: 256}
	capacityHTTP = intake.Capacity{Connections: 4096, PerAddress: 1024}
)

// Servers are the listeners of a process, which start and drain together.
type Servers struct {
	ready  func() bool
	gate   *intake.Gate
	logger logr.Logger

	draining  atomic.Bool
	ending    context.Context //nolint:containedctx // ends the streams that would not end by themselves
	end       context.CancelFunc
	listeners []listener
	healths   []*health.Server
}

type listener struct {
	name   string
	socket net.Listener
	serve  func(net.Listener) error
	// drain lets requests in hand end, until the context ends.
	drain func(context.Context) error
}

// NewServers returns Servers without a listener. ready tells whether requests can be answered; the gate bounds what is arriving; the
// logger is told, at a high level, of connections that come to nothing.
func NewServers(ready func() bool, gate *intake.Gate, logger logr.Logger) *Servers {
	s := &Servers{ready: ready, gate: gate, logger: logger}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

// IsReady tells whether this process wants requests.
func (s *Servers) IsReady() bool { return !s.draining.Load() && s.ready() }

// HTTP adds a listener for HTTP/1.1, with TLS where a configuration is given. It listens from now on, and serves once Run is called.
func (s *Servers) HTTP(ctx context.Context, name, address string, handler http.Handler, config *tls.Config) error {
	socket, err := listen(ctx, name, address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           s.closing(handler),
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       callTimeout,
		WriteTimeout:      callTimeout,
		IdleTimeout:       idleTimeout,
		Protocols:         &http.Protocols{},
		ErrorLog:          slog.NewLogLogger(logr.ToSlogHandler(s.logger), slog.LevelDebug),
	}
	// A request takes little, and comes over a connection that is kept: there is nothing to be won by HTTP/2 and its many ways to make a
	// server hold things.
	server.Protocols.SetHTTP1(true)
	intake.Attach(server)
	socket = s.gate.HTTP1(socket, capacityHTTP)
	l := listener{name: name, socket: socket, serve: server.Serve, drain: server.Shutdown}
	if config != nil {
		server.TLSConfig = config
		l.serve = func(socket net.Listener) error { return server.ServeTLS(socket, "", "") }
	}
	s.listeners = append(s.listeners, l)
	return nil
}

// closing asks clients to close their connection with the next answer once the process drains, so that none is left that could
// be closed under a request.
func (s *Servers) closing(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header()["Connection"] = []string{"close"}
		}
		handler.ServeHTTP(w, r)
	})
}

// GRPC adds a listener for gRPC, with TLS where a configuration is given, and the health service (grpc.health.v1) on it. register
// adds the other services.
func (s *Servers) GRPC(ctx context.Context, name, address string, register func(grpc.ServiceRegistrar), config *tls.Config) error {
	socket, err := listen(ctx, name, address)
	if err != nil {
		return err
	}
	security := insecure.NewCredentials()
	if config != nil {
		security = credentials.NewTLS(config)
	}
	socket = s.gate.GRPC(socket, capacityGRPC, intake.Streams{Concurrent: maxStreams, Head: maxHeader, Message: MaxMessage})
	server := grpc.NewServer(
		grpc.Creds(intake.Credentials(security)),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxRecvMsgSize(MaxMessage), // of health
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTimeout, MaxConnectionAge: maxAge, MaxConnectionAgeGrace: maxAgeGrace,
			Time: pingInterval, Timeout: pingTimeout,
		}),
		grpc.ConnectionTimeout(headTimeout),
		grpc.StreamInterceptor(s.endStream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: headTimeout, PermitWithoutStream: true}),
	)
	register(server)
	state := health.NewServer()
	state.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	for service := range server.GetServiceInfo() {
		state.SetServingStatus(service, healthv1.HealthCheckResponse_NOT_SERVING)
	}
	healthv1.RegisterHealthServer(server, state)
	s.healths = append(s.healths, state)
	s.listeners = append(s.listeners, listener{name: name, socket: socket, serve: server.Serve, drain: func(ctx context.Context) error {
		return drainGRPC(ctx, server)
	}})
	return nil
}

// endStream ends a stream when the process does: who watches the health service would otherwise hold up the end.
// A call that is answered once ends by itself.
func (s *Servers) endStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !info.IsServerStream {
		return handler(server, stream)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	stop := context.AfterFunc(s.ending, cancel)
	defer stop()
	return handler(server, endingStream{stream, ctx})
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc.ServerStream's own shape
}

// Context implements grpc.ServerStream.
func (s endingStream) Context() context.Context { return s.ctx }

func drainGRPC(ctx context.Context, server *grpc.Server) error {
	stop := context.AfterFunc(ctx, server.Stop)
	server.GracefulStop()
	if !stop() {
		return ctx.Err()
	}
	return nil
}

// Close closes the sockets of listeners that never ran.
func (s *Servers) Close() {
	for _, l := range s.listeners {
		_ = l.socket.Close()
	}
}

// Run serves until the context ends, and then drains: for delay it goes on as before, but calls itself not ready, until everybody
// who sends requests has heard of it; then it takes no more connections, and lets the requests in hand end for at most grace.
func (s *Servers) Run(ctx context.Context, delay, grace time.Duration) error {
	failed := make(chan error, len(s.listeners))
	var serving sync.WaitGroup
	sweeping, stopSweeping := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSweeping()
	serving.Go(func() { s.gate.Run(sweeping) })
	for _, l := range s.listeners {
		serving.Go(func() {
			if err := l.serve(l.socket); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) {
				failed <- fmt.Errorf("serve %s on %s: %w", l.name, l.socket.Addr(), err)
			}
		})
	}
	err := s.watchHealth(ctx, failed)
	s.draining.Store(true)
	for _, state := range s.healths {
		state.Shutdown() // not serving, for good
	}
	if err == nil {
		<-time.After(delay)
	}
	s.end()
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	errs := make([]error, len(s.listeners), len(s.listeners)+1)
	var draining sync.WaitGroup
	for i, l := range s.listeners {
		draining.Go(func() {
			if err := l.drain(limit); err != nil {
				errs[i] = fmt.Errorf("drain %s: %w", l.name, err)
			}
		})
	}
	draining.Wait()
	stopSweeping()
	serving.Wait()
	return errors.Join(append(errs, err)...)
}

// watchHealth keeps the health services in step with readiness until the context ends or a listener fails.
func (s *Servers) watchHealth(ctx context.Context, failed <-chan error) error {
	ticks := time.NewTicker(healthInterval)
	defer ticks.Stop()
	was := false
	for {
		if ready := s.ready(); ready != was {
			was = ready
			for _, state := range s.healths {
				if ready {
					state.Resume()
				} else {
					state.Shutdown()
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-ticks.C:
		}
	}
}

func listen(ctx context.Context, name, address string) (net.Listener, error) {
	var config net.ListenConfig
	socket, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	return socket, nil
}
