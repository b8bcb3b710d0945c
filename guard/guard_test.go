package guard

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

func guardOf(world *script.World) *Guard {
	return &Guard{http: world.Protocol, grpc: world.Protocol, reader: world.Reader, proxies: world.Proxies}
}

// needOf translates a scripted request to a [Need]. It returns false if a Need can't express the request:
// default roles exist only as a flag of the verifier.
func needOf(world *script.World, ask script.Ask) (Need, bool) {
	if len(ask.Params) > 0 || len(ask.Namespaces) > 1 || len(ask.Namespaces) == 1 && ask.Namespaces[0] == "" ||
		len(world.Defaults.Roles) > 0 {
		return Need{}, false
	}
	return Need{Roles: ask.Roles, Namespace: strings.Join(ask.Namespaces, ""), AnyKey: !world.Defaults.RequireScope}, true
}

func TestHTTPScripts(t *testing.T) {
	script.Run(t, "go-http", func(t *testing.T, world *script.World, ask script.Ask) (script.Answer, bool) {
		t.Helper()
		need, ok := needOf(world, ask)
		if !ok {
			return script.Answer{}, false
		}
		attributes := map[string]string{}
		next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			identity, ok := FromContext(r.Context())
			if !ok {
				t.Error("the context of an accepted request has no identity")
			}
			maps.Copy(attributes, identity.Attributes)
			for name, value := range map[string]string{"Namespace": identity.Namespace, "Name": identity.Name, "Uid": identity.UID, "Roles": fmt.Sprint(identity.Roles)} {
				w.Header().Set("X-Apikey-"+name, value)
			}
		})
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = "@"
		if ask.From.IsValid() {
			r.RemoteAddr = netip.AddrPortFrom(ask.From, 4711).String()
		}
		r.Header["Authorization"], r.Header["X-Api-Key"], r.Header["X-Forwarded-For"] = ask.Authorization, ask.APIKey, ask.ForwardedFor
		recorder := httptest.NewRecorder()
		guardOf(world).Handler(next, need).ServeHTTP(recorder, r)
		answer := script.HTTPAnswer(t, recorder)
		answer.Headers, answer.Attributes = nil, attributes // a service gets no headers of attributes
		return answer, true
	})
}

func TestGRPCScripts(t *testing.T) {
	script.Run(t, "go-grpc", func(t *testing.T, world *script.World, ask script.Ask) (script.Answer, bool) {
		t.Helper()
		need, ok := needOf(world, ask)
		if !ok {
			return script.Answer{}, false
		}
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{
			"authorization": ask.Authorization, "x-api-key": ask.APIKey, "x-forwarded-for": ask.ForwardedFor,
		})
		if ask.From.IsValid() {
			ctx = peer.NewContext(ctx, &peer.Peer{Addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(ask.From, 4711))})
		}
		interceptor := guardOf(world).UnaryServerInterceptor(func(string) Need { return need })
		answer := script.Answer{}
		_, err := interceptor(ctx, nil, &grpc.UnaryServerInfo{}, func(ctx context.Context, _ any) (any, error) {
			identity, _ := FromContext(ctx)
			answer.Identity = identity.Namespace + "/" + identity.Name
			answer.Attributes = map[string]string{}
			maps.Copy(answer.Attributes, identity.Attributes)
			return nil, nil
		})
		answer.Bytes = fmt.Sprint(err)
		told := status.Convert(err)
		for class, want := range map[verify.Class]*status.Status{
			verify.OK:                nil,
			verify.Unauthenticated:   status.New(codes.Unauthenticated, "no API key in Authorization or X-API-Key"),
			verify.InvalidToken:      status.New(codes.Unauthenticated, "invalid_token"),
			verify.Forbidden:         status.New(codes.PermissionDenied, "forbidden"),
			verify.InsufficientScope: status.New(codes.PermissionDenied, "insufficient_scope"),
			verify.Unavailable:       status.New(codes.Unavailable, "API keys are not loaded or are stale; try again later"),
		} {
			if told.Code() == want.Code() && told.Message() == want.Message() {
				answer.Class = class
			}
		}
		return answer, true
	})
}

func TestTokenAndForgedIdentityAreRemoved(t *testing.T) {
	world := script.NewWorld("go-http")
	key := world.Put("a", nil)
	next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), key) || strings.Contains(strings.ToLower(name), "apikey") {
				t.Errorf("the service receives the header %s", name)
			}
		}
		if r.Header.Get("X-Other") != "stays" {
			t.Error("the header X-Other is missing or changed")
		}
	})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header = http.Header{
		"Authorization": {"Bearer " + key}, "X-Api-Key": {key}, "X-Other": {"stays"},
		"X-Apikey-Attribute-Owner": {"admin"}, "X_apikey_attribute_owner": {"admin"},
		"X-Apikey-Name": {"admin"}, "X_apikey_name": {"admin"}, "x.apikey.name": {"admin"}, "X-Apikey-Foo": {"x"},
	}
	recorder := httptest.NewRecorder()
	guardOf(world).Handler(next, Need{AnyKey: true}).ServeHTTP(recorder, r)
	if recorder.Code != http.StatusOK {
		t.Errorf("status %d, want %d", recorder.Code, http.StatusOK)
	}
	if r.Header.Get("X-Api-Key") == "" {
		t.Error("the original request was modified")
	}

	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+key, "x-apikey-name", "admin", "x-apikey-attribute-owner", "admin", "x-other", "stays"))
	interceptor := guardOf(world).UnaryServerInterceptor(func(string) Need { return Need{AnyKey: true} })
	if _, err := interceptor(ctx, nil, &grpc.UnaryServerInfo{}, func(ctx context.Context, _ any) (any, error) {
		seen, _ := metadata.FromIncomingContext(ctx)
		if len(seen) != 1 || seen.Get("x-other")[0] != "stays" {
			t.Errorf("the service receives %d metadata keys, want x-other alone", len(seen))
		}
		return nil, nil
	}); err != nil {
		t.Error(err)
	}
}

func TestPanicOfTheServiceReachesTheServer(t *testing.T) {
	world := script.NewWorld("go-http")
	key := world.Put("a", nil)
	defer func() {
		if recover() != http.ErrAbortHandler { //nolint:errorlint // net/http compares the value, too
			t.Error("the panic of the service did not reach the server")
		}
	}()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("X-API-Key", key)
	guardOf(world).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}), Need{AnyKey: true}).ServeHTTP(httptest.NewRecorder(), r)
}
