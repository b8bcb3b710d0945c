package forwardauth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/serve/forwardauth"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

func handler(world *script.World) *forwardauth.Handler {
	return &forwardauth.Handler{Checker: world.Protocol, Reader: world.Reader, Proxies: world.Proxies, Defaults: world.Defaults, Attributes: world.Attributes}
}

func request(ask script.Ask) *http.Request {
	query := url.Values{"role": ask.Roles, "namespace": ask.Namespaces}
	for _, param := range ask.Params {
		query.Add(param[0], param[1])
	}
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, forwardauth.Path+"?"+query.Encode(), nil)
	r.RemoteAddr = "@" // a Unix socket
	if ask.From.IsValid() {
		r.RemoteAddr = netip.AddrPortFrom(ask.From, 4711).String()
	}
	r.Header["Authorization"] = ask.Authorization
	r.Header["X-Api-Key"] = ask.APIKey
	r.Header["X-Forwarded-For"] = ask.ForwardedFor
	return r
}

func TestScripts(t *testing.T) {
	script.Run(t, "forward-auth", func(t *testing.T, world *script.World, ask script.Ask) (script.Answer, bool) {
		t.Helper()
		recorder := httptest.NewRecorder()
		handler(world).ServeHTTP(recorder, request(ask))
		return script.HTTPAnswer(t, recorder), true
	})
}

// The peer of a subrequest is the gateway. Unless the gateway is a trusted proxy, the client address is
// unknown, whatever the headers say.
func TestPeerIsNotTheClient(t *testing.T) {
	trusted, err := access.ParseNetworks([]string{"198.51.100.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		proxies access.Proxies
		from    string
		xff     []string
		want    string
	}{
		"untrusted peer":                {access.Proxies{Trusted: trusted}, "10.1.2.3", nil, ""},
		"untrusted peer with a header":  {access.Proxies{Trusted: trusted}, "10.1.2.3", []string{"10.1.2.3"}, ""},
		"no trusted proxies":            {access.Proxies{}, "198.51.100.1", []string{"10.1.2.3"}, ""},
		"trusted peer":                  {access.Proxies{Trusted: trusted}, "198.51.100.1", []string{"10.1.2.3"}, "10.1.2.3"},
		"trusted peer without a header": {access.Proxies{Trusted: trusted}, "198.51.100.1", nil, ""},
		"trusted, and peer is client":   {access.Proxies{Trusted: trusted, PeerIsClient: true}, "198.51.100.1", nil, ""},
		"untrusted, and peer is client": {access.Proxies{Trusted: trusted, PeerIsClient: true}, "10.1.2.3", []string{"10.9.9.9"}, "10.1.2.3"},
	} {
		got := c.proxies.Client(netip.MustParseAddr(c.from), c.xff)
		if want, _ := netip.ParseAddr(c.want); got != want {
			t.Errorf("%s: client address %v, want %q", name, got, c.want)
		}
	}
}

func TestQueryIsStrict(t *testing.T) {
	world := script.NewWorld("forward-auth")
	key := world.Put("a", nil)
	for query, status := range map[string]int{
		"":                                      http.StatusOK,
		"?":                                     http.StatusOK,
		"?role=a;role=b":                        http.StatusForbidden,
		"?role=%zz":                             http.StatusForbidden,
		"?rol=a":                                http.StatusForbidden,
		"?ROLE=a":                               http.StatusForbidden,
		"?role":                                 http.StatusForbidden,
		"?namespace=a&x=":                       http.StatusForbidden,
		"?role=" + strings.Repeat("a", 100_000): http.StatusForbidden,
		"?namespace=shop&namespace=shop":        http.StatusForbidden,
	} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, forwardauth.Path+query, nil)
		r.Header.Set(verify.HeaderAuthorization, "Bearer "+key)
		recorder := httptest.NewRecorder()
		handler(world).ServeHTTP(recorder, r)
		if recorder.Code != status {
			t.Errorf("query %.40q: status %d, want %d", query, recorder.Code, status)
		}
	}
}

func TestRolesHeader(t *testing.T) {
	world := script.NewWorld("forward-auth")
	key := world.Put("a", []string{"b", "a", "c"})
	h := handler(world)
	for _, c := range []struct {
		all      bool
		defaults []string
		query    string
		want     string
	}{
		{false, nil, "", "-"},
		{false, nil, "?role=c&role=a", "c,a"},
		{false, []string{"a"}, "", "a"},
		{false, []string{"a", "c"}, "?role=c&role=b", "c,b,a"},
		{true, nil, "", "a,b,c"},
		{true, []string{"a"}, "?role=c", "a,b,c"},
	} {
		h.AllRoles, h.Defaults.Roles = c.all, c.defaults
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, forwardauth.Path+c.query, nil)
		r.Header.Set(verify.HeaderAPIKey, key)
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, r)
		if got := recorder.Header().Get("X-Apikey-Roles"); got != c.want {
			t.Errorf("query %q, default roles %q, all roles %t: header is %q, want %q", c.query, c.defaults, c.all, got, c.want)
		}
	}
}
