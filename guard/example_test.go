package guard_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/apikey-operator/apikey-operator/guard"
)

// Protect a handler, and read the identity of the API key in it.
func ExampleGuard_Handler() {
	config, stop := startCluster() // a service calls rest.InClusterConfig
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	keys, err := guard.New(config, guard.Options{})
	if err != nil {
		log.Fatal(err)
	}
	go keys.Run(ctx)
	waitUntilReady(keys)

	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := guard.FromContext(r.Context())
		_, _ = fmt.Fprintf(w, "orders for %s/%s", key.Namespace, key.Name)
	})
	server := httptest.NewServer(keys.Handler(orders, guard.Need{AnyKey: true}))
	defer server.Close()

	fmt.Println(get(server.URL, ""))
	fmt.Println(get(server.URL, issuedToken))
	// Output:
	// 401 Unauthorized
	// 200 OK: orders for partners/acme
}

// Require different roles on each route. A key that lacks one of them is refused with 403.
func ExampleNeed() {
	config, stop := startCluster()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	keys, err := guard.New(config, guard.Options{})
	if err != nil {
		log.Fatal(err)
	}
	go keys.Run(ctx)
	waitUntilReady(keys)

	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "done") })
	mux := http.NewServeMux()
	mux.Handle("/orders", keys.Handler(ok, guard.Need{Roles: []string{"org.permission.order.read"}}))
	mux.Handle("/invoices", keys.Handler(ok, guard.Need{Roles: []string{"org.permission.invoice.read"}}))
	mux.Handle("/internal", keys.Handler(ok, guard.Need{Namespace: "platform"}))
	server := httptest.NewServer(mux)
	defer server.Close()

	// The key partners/acme carries org.permission.order.read.
	for _, route := range []string{"/orders", "/invoices", "/internal"} {
		fmt.Println(route, get(server.URL+route, issuedToken))
	}
	// Output:
	// /orders 200 OK: done
	// /invoices 403 Forbidden
	// /internal 403 Forbidden
}

// Until the API keys are loaded, every request is refused with 503. A readiness probe that returns Ready keeps clients away
// from the replica for that time.
func ExampleGuard_Ready() {
	config, stop := startCluster()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	keys, err := guard.New(config, guard.Options{})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/orders", keys.Handler(http.NotFoundHandler(), guard.Need{AnyKey: true}))
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !keys.Ready() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	fmt.Println("before Run:", get(server.URL+"/readyz", ""))
	fmt.Println("before Run:", get(server.URL+"/orders", issuedToken))
	go keys.Run(ctx)
	waitUntilReady(keys)
	fmt.Println("loaded:", get(server.URL+"/readyz", ""))
	// Output:
	// before Run: 503 Service Unavailable
	// before Run: 503 Service Unavailable
	// loaded: 200 OK
}

// Protect a gRPC server. The function tells what each method needs; here, the health service is checked like any other.
func ExampleGuard_UnaryServerInterceptor() {
	config, stop := startCluster()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	keys, err := guard.New(config, guard.Options{})
	if err != nil {
		log.Fatal(err)
	}
	go keys.Run(ctx)
	waitUntilReady(keys)

	needs := func(method string) guard.Need {
		if method == healthv1.Health_List_FullMethodName {
			return guard.Need{Roles: []string{"org.permission.health.list"}}
		}
		return guard.Need{AnyKey: true}
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(keys.UnaryServerInterceptor(needs)),
		grpc.StreamInterceptor(keys.StreamServerInterceptor(needs)),
	)
	healthv1.RegisterHealthServer(server, health{})
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	client := healthv1.NewHealthClient(connection)
	authenticated := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+issuedToken)

	_, err = client.Check(ctx, &healthv1.HealthCheckRequest{})
	fmt.Println("Check without a token:", status.Code(err))
	_, err = client.Check(authenticated, &healthv1.HealthCheckRequest{})
	fmt.Println("Check:", status.Code(err))
	_, err = client.List(authenticated, &healthv1.HealthListRequest{})
	fmt.Println("List:", status.Code(err))
	// Output:
	// Check without a token: Unauthenticated
	// called with partners/acme
	// Check: OK
	// List: PermissionDenied
}

// health is a gRPC service that prints which API key it was called with.
type health struct {
	healthv1.UnimplementedHealthServer
}

// Check implements the Health service.
func (health) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	key, ok := guard.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "no identity in the context")
	}
	fmt.Printf("called with %s/%s\n", key.Namespace, key.Name)
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}
