package docs

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apikey-operator/apikey-operator/hack/gateway"
)

type starter func(ctx context.Context, root, dir string, behind gateway.Backends, out io.Writer) (*gateway.Gateway, error)

// Without a verifier a gateway lets nothing through, and says that it is not the client's fault. test/gateways holds the same files
// against a verifier that answers.
func TestGatewaysAreClosedWithoutAVerifier(t *testing.T) {
	for _, c := range []struct {
		program  string
		start    starter
		notThere int
	}{
		{program: "nginx", start: gateway.Nginx, notThere: http.StatusServiceUnavailable},
		{program: "caddy", start: gateway.Caddy, notThere: http.StatusBadGateway},
	} {
		t.Run(c.program, func(t *testing.T) {
			if _, ok := gateway.Find(c.program); !ok {
				t.Skip("LEFT OUT: " + c.program + " is not installed (apt-get install nginx-light caddy); nothing is proved about it")
			}
			var answer, apiCalls atomic.Int64
			answer.Store(http.StatusServiceUnavailable)
			verifier := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(answer.Load())) }))
			defer verifier.Close()
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				apiCalls.Add(1)
				w.Header().Set("X-Api", "yes")
				w.WriteHeader(http.StatusInternalServerError)
			}))
			defer api.Close()
			url := startGateway(t, c.start, verifier.Listener.Addr().String(), api.Listener.Addr().String())

			if status, _ := ask(t, url); status != http.StatusServiceUnavailable || apiCalls.Load() != 0 {
				t.Errorf("a verifier that is not ready: %d, %d calls of the API", status, apiCalls.Load())
			}
			answer.Store(http.StatusOK)
			if status, header := ask(t, url); status != http.StatusInternalServerError || header.Get("X-Api") != "yes" {
				t.Errorf("the API's own 500 came out as %d, %v", status, header)
			}
			apiCalls.Store(0)
			verifier.Close()
			if status, _ := ask(t, url); status != c.notThere || apiCalls.Load() != 0 {
				t.Errorf("no verifier: %d, %d calls of the API", status, apiCalls.Load())
			}
		})
	}
}

func startGateway(t *testing.T, start starter, verifier, api string) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gateway-") // not t.TempDir: nginx's workers are another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	g, err := start(t.Context(), root, dir, gateway.Backends{Verifiers: []string{verifier}, API: api}, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	t.Cleanup(func() { _ = g.Stop() })
	return g.URL + "/orders"
}

func ask(t *testing.T, url string) (int, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode, response.Header
}
