package forwardauth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

// BenchmarkServeHTTP measures a subrequest that is accepted.
func BenchmarkServeHTTP(b *testing.B) {
	world := script.NewWorld("forward-auth")
	key := world.Put("a", []string{"org.permission.customer.read"})
	h := handler(world)
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/auth?role=org.permission.customer.read", nil)
	r.Header.Set("Authorization", "Bearer "+key)
	b.ReportAllocs()
	for b.Loop() {
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, r)
		if recorder.Code != http.StatusOK {
			b.Fatalf("status %d, want %d", recorder.Code, http.StatusOK)
		}
	}
}
