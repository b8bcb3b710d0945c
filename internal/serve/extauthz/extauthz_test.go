package extauthz_test

import (
	"bytes"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/serve/extauthz"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

// dial serves a [extauthz.Server] over gRPC in memory.
func dial(t *testing.T, server *extauthz.Server) *grpc.ClientConn {
	t.Helper()
	socket := bufconn.Listen(1 << 20)
	s := grpc.NewServer(serve.Codec())
	extauthz.Register(s, server)
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
	return connection
}

func check(t *testing.T, server *extauthz.Server, message *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	response, err := authv3.NewAuthorizationClient(dial(t, server)).Check(t.Context(), message)
	if err != nil {
		t.Fatalf("the call failed, so Envoy may accept the request: %v", err)
	}
	return response
}

// ask asks without gRPC.
func ask(t testing.TB, server *extauthz.Server, message *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	encoded, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	response := &authv3.CheckResponse{}
	if err := proto.Unmarshal(server.AppendAnswer(nil, encoded), response); err != nil {
		t.Fatalf("the response is not valid: %v", err)
	}
	return response
}

func server(world *script.World) *extauthz.Server {
	return &extauthz.Server{Checker: world.Protocol, Reader: world.Reader, Proxies: world.Proxies, Defaults: world.Defaults, Attributes: world.Attributes}
}

type field struct{ name, value string }

// message returns what Envoy sends: names in lower case with repeated headers joined, or all headers raw.
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
	// Extensions that gateways add must be ignored.
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
				return answer(t, check(t, server(world), message(ask, raw))), true
			})
		})
	}
}

func answer(t *testing.T, response *authv3.CheckResponse) script.Answer {
	t.Helper()
	if ok := response.GetOkResponse(); ok != nil {
		slices.Sort(ok.HeadersToRemove) // their order is random, and says nothing
	}
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	a := script.Answer{Bytes: string(wire)}
	if denied := response.GetDeniedResponse(); denied != nil {
		headers := options(denied.GetHeaders())
		a.Class = script.HTTPClass(t, int(denied.GetStatus().GetCode()), headers["www-authenticate"])
		if response.GetStatus().GetCode() == 0 || denied.GetBody() != "" || response.GetDynamicMetadata() != nil {
			t.Error("a refusal has status OK, a body or metadata")
		}
		return a
	}
	ok := response.GetOkResponse()
	if ok == nil || response.GetStatus().GetCode() != 0 {
		t.Fatal("the response neither accepts nor denies")
	}
	a.Class = verify.OK
	headers := options(ok.GetHeaders())
	for _, name := range []string{"x-apikey-namespace", "x-apikey-name", "x-apikey-uid", "x-apikey-roles"} {
		if headers[name] == "" {
			t.Errorf("the request is accepted without the header %s", name)
		}
		a.Identity += headers[name]
	}
	for _, name := range []string{"namespace", "name", "uid", "roles"} {
		if got := response.GetDynamicMetadata().GetFields()[name].GetStringValue(); got != headers["x-apikey-"+name] {
			t.Errorf("metadata %s is %q, but the header is %q", name, got, headers["x-apikey-"+name])
		}
	}
	a.Attributes = map[string]string{}
	for name, value := range response.GetDynamicMetadata().GetFields()["attributes"].GetStructValue().GetFields() {
		a.Attributes[name] = value.GetStringValue()
	}
	list := map[string][]string{}
	for name, value := range headers {
		list[name] = []string{value}
	}
	a.Headers = script.AttributesOf(list)
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

func TestHeadersToRemove(t *testing.T) {
	world := script.NewWorld("ext_authz")
	key := world.Put("a", nil)
	const foreign = "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x"
	for name, c := range map[string]struct {
		headers map[string]string
		keep    bool
		removed []string
	}{
		"bearer":              {map[string]string{"authorization": "Bearer " + key}, false, []string{"authorization"}},
		"X-API-Key":           {map[string]string{"x-api-key": key}, false, []string{"x-api-key"}},
		"both":                {map[string]string{"authorization": "Bearer " + key, "x-api-key": key}, false, []string{"authorization", "x-api-key"}},
		"foreign bearer":      {map[string]string{"authorization": foreign, "x-api-key": key}, false, []string{"x-api-key"}},
		"kept":                {map[string]string{"authorization": "Bearer " + key, "x-api-key": key}, true, nil},
		"forged, overwritten": {map[string]string{"x-api-key": key, "x-apikey-name": "admin"}, true, nil},
		"forged, removed": {
			map[string]string{"x-api-key": key, "x-apikey-tenant": "a", "x_apikey_name": "b", "x.apikey.uid": "c", "X-ApiKey-Foo": "d"}, true,
			[]string{"x-apikey-foo", "x-apikey-tenant", "x.apikey.uid", "x_apikey_name"},
		},
	} {
		s := server(world)
		s.KeepCredential = c.keep
		response := ask(t, s, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Headers: c.headers}},
		}})
		if response.GetOkResponse() == nil {
			t.Fatalf("%s: not accepted: %v", name, response)
		}
		if got := slices.Sorted(slices.Values(response.GetOkResponse().GetHeadersToRemove())); !slices.Equal(got, c.removed) {
			t.Errorf("%s: removes %v, want %v", name, got, c.removed)
		}
	}
}

// Envoy removes headers after it sets others, so a header that is overwritten must not be removed. A client's header of an attribute that is
// not forwarded must be.
func TestForgedAttributes(t *testing.T) {
	world := script.NewWorld("ext_authz")
	attributes, err := verify.NewAttributes(map[string]string{"owner": "team-shop"})
	if err != nil {
		t.Fatal(err)
	}
	s := server(world)
	if s.Attributes, err = serve.NewAttributeHeaders([]string{"owner", "plan"}); err != nil {
		t.Fatal(err)
	}
	response := ask(t, s, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Headers: map[string]string{
			"x-api-key": world.PutOwned("a", nil, attributes), "x-apikey-attribute-owner": "admin", "x-apikey-attribute-plan": "gold",
			"x-apikey-attribute-tier": "1", "x_apikey_attribute_owner": "admin", "x-apikey-attribute-owner-": "admin",
		}}},
	}})
	if response.GetOkResponse() == nil {
		t.Fatalf("not accepted: %v", response)
	}
	set := options(response.GetOkResponse().GetHeaders())
	if set["x-apikey-attribute-owner"] != "team-shop" || set["x-apikey-attribute-plan"] != "-" || len(set) != 6 {
		t.Errorf("sets the headers %v, want the identity, the owner and no plan", set)
	}
	want := []string{"x-api-key", "x-apikey-attribute-owner-", "x-apikey-attribute-tier", "x_apikey_attribute_owner"}
	if got := slices.Sorted(slices.Values(response.GetOkResponse().GetHeadersToRemove())); !slices.Equal(got, want) {
		t.Errorf("removes %v, want %v", got, want)
	}
}

func TestEmptyMessagesAreRefused(t *testing.T) {
	world := script.NewWorld("ext_authz")
	for _, m := range []*authv3.CheckRequest{nil, {}, {Attributes: &authv3.AttributeContext{}}} {
		if response := ask(t, server(world), m); response.GetDeniedResponse().GetStatus().GetCode() != 401 {
			t.Errorf("response %v, want a denial with 401", response)
		}
	}
}

func TestPanicIsRefused(t *testing.T) {
	// Without keys, every decision panics.
	checker := serve.NewChecker(serve.Options{Observers: []serve.Observer{serve.NewMetrics(prometheus.NewRegistry())}})
	response := check(t, &extauthz.Server{Checker: checker.Protocol("ext_authz")}, &authv3.CheckRequest{})
	if response.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("response %v, want a denial with 503", response)
	}
}

// Calls share memory one after another, so an answer must never be that of another call.
func TestConcurrentCalls(t *testing.T) {
	world := script.NewWorld("ext_authz")
	client := authv3.NewAuthorizationClient(dial(t, server(world)))
	var group sync.WaitGroup
	for i := range 8 {
		name := strings.Repeat("a", 1+100*i) // answers of different lengths
		token := world.Put(name, nil)
		group.Go(func() {
			for range 200 {
				for key, want := range map[string]string{token: name, token + "x": ""} {
					response, err := client.Check(t.Context(), message(script.Ask{APIKey: []string{key}}, i%2 == 0))
					if err != nil {
						t.Errorf("the call failed: %v", err)
						return
					}
					if got := options(response.GetOkResponse().GetHeaders())["x-apikey-name"]; got != want {
						t.Errorf("the answer has the name %.20q, want %.20q", got, want)
					}
				}
			}
		})
	}
	group.Wait()
}

// unary is the method as gateways call it. stream is a call with any number of messages, as a client may
// send.
var unary, stream = &grpc.StreamDesc{}, &grpc.StreamDesc{ClientStreams: true}

// A call must not fail because of what the client sent: a gateway may be configured to accept requests when a
// call fails.
func TestUnreadableMessagesAreAnswered(t *testing.T) {
	world := script.NewWorld("ext_authz")
	token := world.Put("a", nil)
	good, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-api-key": token}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	// padded adds an unknown field, which protobuf ignores.
	padded := func(size uint64) []byte {
		padding := protowire.AppendTag(bytes.Clone(good), 1000, protowire.BytesType)
		return protowire.AppendBytes(padding, make([]byte, int(size)-len(padding)-protowire.SizeVarint(size))) //nolint:gosec // a few MiB
	}
	for name, c := range map[string]struct {
		kind     *grpc.StreamDesc
		messages [][]byte
		options  []grpc.CallOption
		want     int32
	}{
		"valid":                 {unary, [][]byte{good}, nil, 0},
		"of the maximum size":   {unary, [][]byte{padded(serve.MaxMessage)}, nil, 0},
		"one byte too large":    {unary, [][]byte{padded(serve.MaxMessage + 1)}, nil, 401},
		"5 MiB":                 {unary, [][]byte{padded(5 << 20)}, nil, 401},
		"none":                  {stream, nil, nil, 401},
		"two":                   {stream, [][]byte{good, good}, nil, 401},
		"compressed":            {unary, [][]byte{good}, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, 401},
		"garbage":               {unary, [][]byte{[]byte("\xff\xff\xff")}, nil, 401},
		"a header not in UTF-8": {unary, [][]byte{[]byte("\x0a\x14\x22\x12\x12\x10\x1a\x0e\x0a\x01a\x12\x09Bearer \xff\xfe")}, nil, 401},
	} {
		call, err := dial(t, server(world)).NewStream(t.Context(), c.kind, authv3.Authorization_Check_FullMethodName,
			append(c.options, grpc.ForceCodec(rawCodec{}))...)
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range c.messages {
			if err := call.SendMsg(message); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := call.CloseSend(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		response := &authv3.CheckResponse{}
		if err := call.RecvMsg(response); err != nil {
			t.Errorf("%s: the call failed, so Envoy may accept the request: %v", name, err)
		} else if got := int32(response.GetDeniedResponse().GetStatus().GetCode()); got != c.want {
			t.Errorf("%s: denied with %d, want %d (0 means accepted)", name, got, c.want)
		}
	}
}

// rawCodec sends messages that are already encoded.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (rawCodec) Unmarshal(data []byte, v any) error { return proto.Unmarshal(data, v.(proto.Message)) }

func (rawCodec) Name() string { return "proto" }
