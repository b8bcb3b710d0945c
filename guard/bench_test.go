package guard

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

// BenchmarkHandler measures what the guard adds to an HTTP request that is accepted.
func BenchmarkHandler(b *testing.B) {
	world := script.NewWorld("go-http")
	key := world.Put("a", []string{"read"})
	handler := guardOf(world).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), Need{Roles: []string{"read"}})
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("User-Agent", "curl")
	b.ReportAllocs()
	for b.Loop() {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, r)
		if recorder.Code != http.StatusOK {
			b.Fatalf("status %d, want %d", recorder.Code, http.StatusOK)
		}
	}
}

// BenchmarkInterceptor measures what the guard adds to a unary call that is accepted.
func BenchmarkInterceptor(b *testing.B) {
	world := script.NewWorld("go-grpc")
	key := world.Put("a", []string{"read"})
	interceptor := guardOf(world).UnaryServerInterceptor(func(string) Need { return Need{Roles: []string{"read"}} })
	ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("authorization", "Bearer "+key, "user-agent", "grpc-go"))
	info := &grpc.UnaryServerInfo{FullMethod: "/a/b"}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := interceptor(ctx, nil, info, handler); err != nil {
			b.Fatal(err)
		}
	}
}
