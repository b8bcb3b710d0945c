package docs

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/test/kit/gateway"
)

type starter func(ctx context.Context, root, dir string, behind gateway.Backends, out io.Writer) (*gateway.Gateway, error)

// TestGatewaysAreClosedWithoutAVerifier checks that a gateway refuses everything without a verifier, or with one that doesn't answer, and
// answers with a server error. test/gateways tests the same files with a verifier that answers.
func TestGatewaysAreClosedWithoutAVerifier(t *testing.T) {
	for _, c := range []struct {
		program        string
		start          starter
		notThere, slow int
	}{
		{program: "nginx", start: gateway.Nginx, notThere: http.StatusServiceUnavailable, slow: http.StatusServiceUnavailable},
		{program: "caddy", start: gateway.Caddy, notThere: http.StatusBadGateway, slow: http.StatusGatewayTimeout},
		{program: "traefik", start: gateway.Traefik, notThere: http.StatusInternalServerError, slow: http.StatusInternalServerError},
	} {
		t.Run(c.program, func(t *testing.T) {
			if _, ok := gateway.Find(filepath.Join("..", ".."), c.program); !ok {
				t.Skip("LEFT OUT: " + c.program + " is not installed (apt-get install nginx-light caddy; make traefik), so it is not tested")
			}
			t.Parallel() // Traefik waits for half a minute
			var answer, apiCalls atomic.Int64
			answer.Store(http.StatusServiceUnavailable)
			const never = 0 // stands for no answer
			verifier := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if answer.Load() == never {
					<-r.Context().Done() // the gateway has given up
					return
				}
				w.WriteHeader(int(answer.Load()))
			}))
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
			answer.Store(never)
			if status, _ := ask(t, url); status != c.slow || apiCalls.Load() != 0 {
				t.Errorf("a verifier that does not answer: %d, %d calls of the API", status, apiCalls.Load())
			}
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

// TestRoutesOfGatewaysAreUnderstood checks that the verifier understands the scopes in the documented configurations. A BadRoute would refuse
// everybody.
func TestRoutesOfGatewaysAreUnderstood(t *testing.T) {
	understood := func(where string, roles, namespaces []string) {
		t.Helper()
		if problem := verify.NewRoute(roles, namespaces).Problem; problem != "" || len(roles) == 0 {
			t.Errorf("%s: roles %q, namespaces %q: %s", where, roles, namespaces, problem)
		}
	}
	asks := regexp.MustCompile(`/auth\?([^\s;"]*)`)
	for _, name := range []string{"nginx.conf", "Caddyfile", "traefik.yaml", "ingress-nginx.yaml"} {
		found := asks.FindAllStringSubmatch(page(t, "docs", "gateways", name), -1)
		if len(found) == 0 {
			t.Errorf("%s requires nothing", name)
		}
		for _, match := range found {
			query, err := url.ParseQuery(match[1])
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			understood(name, query["role"], query["namespace"])
			delete(query, "role")
			delete(query, "namespace")
			if len(query) > 0 {
				t.Errorf("%s: the verifier doesn't know the parameters %v", name, query)
			}
		}
	}
	extensions := regexp.MustCompile(`name: roles, type: Value, value: (\S+)}`).FindStringSubmatch(page(t, "docs", "gateways", "envoy-gateway.yaml"))
	if extensions == nil {
		t.Fatal("envoy-gateway.yaml requires nothing")
	}
	understood("envoy-gateway.yaml", strings.Split(extensions[1], ","), nil)
}
