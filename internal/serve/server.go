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
	// maxHeader is in bytes. It is more than the proxies in front of the verifier accept, so that an
	// oversized header of a client gets our 401 and not the 431 of net/http, which nginx turns into 500.
	// Envoy also copies some headers of the client, such as tracestate, to the headers of its own call.
	maxHeader = 128 << 10
	// maxStreams is the maximum number of in-flight calls on a connection. Gateways open further connections
	// when they need more.
	maxStreams = 256

	// streamWindow and connectionWindow are how many bytes a client may send ahead. The stream's window grows for a
	// message that is larger. The connection's window has room for the calls in flight, since the server reads them at
	// once.
	streamWindow     = 64 << 10
	connectionWindow = 1 << 20
	// streamWorkers is the number of goroutines that handle calls one after another, so that their stacks have grown
	// already. While all are busy, further calls get a goroutine each.
	streamWorkers = 32

	// headTimeout is how long the header of a request, or a TLS handshake, may take to arrive. callTimeout is
	// how long a whole HTTP request or response may take.
	headTimeout = 10 * time.Second
	callTimeout = 30 * time.Second
	// idleTimeout is longer than that of the proxies, so that the verifier never closes a connection on which
	// a request is on its way.
	idleTimeout = 5 * time.Minute

	// maxAge ends gRPC connections with GOAWAY after their calls are answered, so that gateways also connect
	// to new replicas.
	maxAge      = time.Hour
	maxAgeGrace = time.Minute
	// pingInterval and pingTimeout detect peers that are gone.
	pingInterval = time.Minute
	pingTimeout  = 20 * time.Second

	healthInterval = 100 * time.Millisecond
)

// DefaultLimits returns the limits for requests that have not arrived in full. The requests of a well-behaved
// gateway arrive in one piece, so it uses almost nothing of the bytes of its address.
func DefaultLimits() intake.Limits {
	return intake.Limits{Bytes: 96 << 20, BytesPerAddress: 32 << 20, Message: headTimeout}
}

// Capacities of the listeners. A gRPC connection takes up to 100 KiB of memory, an HTTP connection about 20
// KiB.
var (
	capacityGRPC = intake.Capacity{Connections: 1024, PerAddress: 256}
	capacityHTTP = intake.Capacity{Connections: 4096, PerAddress: 1024}
)

// Servers are the listeners of a process. They start and drain together.
type Servers struct {
	ready  func() bool
	gate   *intake.Gate
	logger logr.Logger

	draining  atomic.Bool
	ending    context.Context //nolint:containedctx // ends server streams, which don't end by themselves
	end       context.CancelFunc
	listeners []listener
	healths   []*health.Server
}

type listener struct {
	name   string
	socket net.Listener
	serve  func(net.Listener) error
	// drain waits for in-flight requests until ctx is done.
	drain func(context.Context) error
}

// NewServers returns Servers without listeners. ready reports whether requests can be answered. gate limits
// the requests that are arriving. logger receives failed connections at the debug level.
func NewServers(ready func() bool, gate *intake.Gate, logger logr.Logger) *Servers {
	s := &Servers{ready: ready, gate: gate, logger: logger}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

// IsReady reports whether the process accepts requests: it is ready and doesn't drain.
func (s *Servers) IsReady() bool { return !s.draining.Load() && s.ready() }

// HTTP adds a listener for HTTP/1.1, with TLS if config is not nil. It listens at once. [Servers.Run] serves
// it.
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
	// HTTP/2 would gain nothing: requests are small and connections are kept open. It would only offer clients more
	// ways to take memory.
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

// closing adds Connection: close to the answers while the process drains. Clients then open no further
// requests on connections that are about to be closed.
func (s *Servers) closing(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header()["Connection"] = []string{"close"}
		}
		handler.ServeHTTP(w, r)
	})
}

// GRPC adds a listener for gRPC, with TLS if config is not nil. It serves the health service (grpc.health.v1)
// and the services that register adds.
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
		Codec(),
		grpc.Creds(intake.Credentials(security)),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxRecvMsgSize(MaxMessage), // for the health service: others call Receive
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTimeout, MaxConnectionAge: maxAge, MaxConnectionAgeGrace: maxAgeGrace,
			Time: pingInterval, Timeout: pingTimeout,
		}),
		grpc.ConnectionTimeout(headTimeout),
		// Windows of a fixed size: to find a better one, grpc-go would ping the client with almost every request.
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.NumStreamWorkers(streamWorkers),
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

// endStream ends server streams when the process drains. Otherwise a client that watches the health service
// would delay the shutdown. Unary calls end by themselves.
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

// Context implements [grpc.ServerStream].
func (s endingStream) Context() context.Context { return s.ctx }

func drainGRPC(ctx context.Context, server *grpc.Server) error {
	stop := context.AfterFunc(ctx, server.Stop)
	server.GracefulStop()
	if !stop() {
		return ctx.Err()
	}
	return nil
}

// Close closes the listeners if [Servers.Run] was not called.
func (s *Servers) Close() {
	for _, l := range s.listeners {
		_ = l.socket.Close()
	}
}

// Run serves until ctx is done and then shuts down gracefully. For delay, it keeps serving but reports not
// ready, so that load balancers can stop sending requests. It then closes the listeners and waits for
// in-flight requests, at most for grace.
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
		state.Shutdown() // not serving from now on
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

// watchHealth updates the health services when readiness changes. It returns when ctx is done or a listener
// fails.
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
		return nil, fmt.Errorf("start the listener for %s: %w", name, err)
	}
	return socket, nil
}
