package extauthz_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/serve/extauthz"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/test/script"
)

// dial serves an Authorization service over gRPC in memory.
func dial(t *testing.T, server authv3.AuthorizationServer) authv3.AuthorizationClient {
	t.Helper()
	socket := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, server)
	done := make(chan error, 1)
	go func() { done <- s.Serve(socket) }()
	connection, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return socket.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = connection.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return authv3.NewAuthorizationClient(connection)
}

func server(world *script.World) *extauthz.Server {
	return &extauthz.Server{Checker: world.Protocol, Reader: world.Reader, Proxies: world.Proxies, Defaults: world.Defaults}
}

type field struct{ name, value string }

// message is what Envoy sends: names in lower case, and repeated headers joined, or all of them raw.
func message(ask script.Ask, raw bool) *authv3.CheckRequest {
	http := &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/orders", Host: "shop.example"}
	fields := []field{{":method", "GET"}, {":path", "/orders"}, {"user-agent", "curl"}}
	for name, values := range map[string][]string{
		"authorization": ask.Authorization, "x-api-key": ask.APIKey, "x-forwarded-for": ask.ForwardedFor,
	} {
		for _, value := range values {
			fields = append(fields, field{name, value})
		}
	}
	if raw {
		http.HeaderMap = &corev3.HeaderMap{}
		for _, f := range fields {
			http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: f.name, RawValue: []byte(f.value)})
		}
	} else {
		http.Headers = map[string]string{}
		for _, f := range fields {
			if before, ok := http.Headers[f.name]; ok {
				f.value = before + "," + f.value
			}
			http.Headers[f.name] = strings.ToValidUTF8(f.value, "!") // as Envoy does
		}
	}
	address := &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/envoy"}}}
	if ask.From.IsValid() {
		address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: ask.From.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711},
		}}}
	}
	// What gateways add of their own must do no harm.
	extensions := map[string]string{"istio.io/policy": "orders", "virtual_host": "shop"}
	if len(ask.Roles) > 0 {
		extensions["roles"] = strings.Join(ask.Roles, ", ")
	}
	for _, namespace := range ask.Namespaces {
		extensions["namespace"] = namespace
	}
	for _, param := range ask.Params {
		extensions[param[0]] = param[1]
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:            &authv3.AttributeContext_Peer{Address: address},
		Request:           &authv3.AttributeContext_Request{Http: http},
		ContextExtensions: extensions,
	}}
}

func TestScripts(t *testing.T) {
	for name, raw := range map[string]bool{"joined headers": false, "raw headers": true} {
		t.Run(name, func(t *testing.T) {
			script.Run(t, "ext_authz", func(t *testing.T, world *script.World, ask script.Ask) (script.Answer, bool) {
				t.Helper()
				response, err := dial(t, server(world)).Check(t.Context(), message(ask, raw))
				if err != nil {
					t.Fatalf("the call failed, which Envoy may take for a yes: %v", err)
				}
				return answer(t, response), true
			})
		})
	}
}

func answer(t *testing.T, response *authv3.CheckResponse) script.Answer {
	t.Helper()
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	a := script.Answer{Bytes: string(wire)}
	if denied := response.GetDeniedResponse(); denied != nil {
		headers := options(denied.GetHeaders())
		a.Class = script.HTTPClass(t, int(denied.GetStatus().GetCode()), headers["www-authenticate"])
		if response.GetStatus().GetCode() == 0 || denied.GetBody() != "" || response.GetDynamicMetadata() != nil {
			t.Error("a refusal with a good status, a body or metadata")
		}
		return a
	}
	ok := response.GetOkResponse()
	if ok == nil || response.GetStatus().GetCode() != 0 {
		t.Fatal("neither a yes nor a no")
	}
	a.Class = verify.OK
	headers := options(ok.GetHeaders())
	for _, name := range []string{"x-apikey-namespace", "x-apikey-name", "x-apikey-uid", "x-apikey-roles"} {
		if headers[name] == "" {
			t.Errorf("a yes without %s", name)
		}
		a.Identity += headers[name]
	}
	for _, name := range []string{"namespace", "name", "uid", "roles"} {
		if got := response.GetDynamicMetadata().GetFields()[name].GetStringValue(); got != headers["x-apikey-"+name] {
			t.Errorf("metadata %s is %q, the header %q", name, got, headers["x-apikey-"+name])
		}
	}
	return a
}

func options(list []*corev3.HeaderValueOption) map[string]string {
	set := map[string]string{}
	for _, option := range list {
		if option.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			set[option.GetHeader().GetKey()] = option.GetHeader().GetValue()
		}
	}
	return set
}

func TestWhatTheUpstreamMustNotSee(t *testing.T) {
	world := script.NewWorld("ext_authz")
	key := world.Put("a", nil)
	const foreign = "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x"
	for name, c := range map[string]struct {
		headers map[string]string
		keep    bool
		removed []string
	}{
		"bearer":           {map[string]string{"authorization": "Bearer " + key}, false, []string{"authorization"}},
		"X-API-Key":        {map[string]string{"x-api-key": key}, false, []string{"x-api-key"}},
		"both":             {map[string]string{"authorization": "Bearer " + key, "x-api-key": key}, false, []string{"authorization", "x-api-key"}},
		"foreign bearer":   {map[string]string{"authorization": foreign, "x-api-key": key}, false, []string{"x-api-key"}},
		"kept":             {map[string]string{"authorization": "Bearer " + key, "x-api-key": key}, true, nil},
		"forged, the same": {map[string]string{"x-api-key": key, "x-apikey-name": "admin"}, true, nil}, // overwritten
		"forged, others": {
			map[string]string{"x-api-key": key, "x-apikey-tenant": "a", "x_apikey_name": "b", "x.apikey.uid": "c", "X-ApiKey-Foo": "d"}, true,
			[]string{"x-apikey-foo", "x-apikey-tenant", "x.apikey.uid", "x_apikey_name"},
		},
	} {
		s := server(world)
		s.KeepCredential = c.keep
		response, err := s.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Headers: c.headers}},
		}})
		if err != nil || response.GetOkResponse() == nil {
			t.Fatalf("%s: refused, %v", name, err)
		}
		if got := slices.Sorted(slices.Values(response.GetOkResponse().GetHeadersToRemove())); !slices.Equal(got, c.removed) {
			t.Errorf("%s: removes %v, want %v", name, got, c.removed)
		}
	}
}

func TestEmptyMessagesAreRefused(t *testing.T) {
	world := script.NewWorld("ext_authz")
	for _, m := range []*authv3.CheckRequest{nil, {}, {Attributes: &authv3.AttributeContext{}}} {
		response, err := server(world).Check(t.Context(), m)
		if err != nil || response.GetDeniedResponse().GetStatus().GetCode() != 401 {
			t.Errorf("%v, %v; want a denial with 401", response, err)
		}
	}
}

func TestPanicIsRefused(t *testing.T) {
	registry := prometheus.NewRegistry()
	// Without keys, every decision panics.
	checker := serve.NewChecker(serve.Options{Metrics: registry})
	response, err := dial(t, &extauthz.Server{Checker: checker.Protocol("ext_authz")}).Check(t.Context(), &authv3.CheckRequest{})
	if err != nil || response.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("%v, %v; want a denial with 503", response, err)
	}
}
