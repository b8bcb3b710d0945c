package docs

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	managerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/internal/verify"
)

func page(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEnvoyConfigurationIsValid validates the configuration with Envoy's protos and their constraints, because Envoy isn't available here.
func TestEnvoyConfigurationIsValid(t *testing.T) {
	bootstrap := envoyBootstrap(t)
	var checked int
	everyMessage(t, bootstrap, func(where string, message proto.Message) {
		if m, ok := message.(interface{ ValidateAll() error }); ok {
			checked++
			if err := m.ValidateAll(); err != nil {
				t.Errorf("%s: %v", where, err)
			}
		}
	})
	if checked < 20 {
		t.Errorf("only %d messages were validated", checked)
	}
}

func TestEnvoyConfigurationAsksTheVerifierForEachRoute(t *testing.T) {
	bootstrap := envoyBootstrap(t)
	clusters := map[string]bool{}
	for _, cluster := range bootstrap.GetStaticResources().GetClusters() {
		clusters[cluster.GetName()] = true
	}
	var filters, routes, settings, open int
	everyMessage(t, bootstrap, func(where string, message proto.Message) {
		switch m := message.(type) {
		case *extauthzv3.ExtAuthz:
			filters++
			if m.GetTransportApiVersion() != corev3.ApiVersion_V3 || m.GetFailureModeAllow() {
				t.Errorf("%s: want ext_authz V3 that refuses everything when it fails", where)
			}
			if name := m.GetGrpcService().GetEnvoyGrpc().GetClusterName(); !clusters[name] {
				t.Errorf("%s: no cluster %q", where, name)
			}
		case *routev3.Route:
			if m.GetDirectResponse() != nil { // see TestEnvoyConfigurationRefusesAmbiguousPaths
				return
			}
			routes++
			if name := m.GetRoute().GetCluster(); !clusters[name] {
				t.Errorf("%s: no cluster %q", where, name)
			}
		case *extauthzv3.ExtAuthzPerRoute:
			if m.GetDisabled() {
				open++
				return
			}
			settings++
			roles := strings.Split(m.GetCheckSettings().GetContextExtensions()["roles"], ",")
			if problem := verify.NewRoute(roles, nil).Problem; problem != "" {
				t.Errorf("%s: the verifier does not understand %q: %s", where, roles, problem)
			}
		}
	})
	if filters != 1 || routes == 0 || settings != routes || open != 1 {
		t.Errorf("%d filters, %d routes, %d of them with roles, %d answered without a check", filters, routes, settings, open)
	}
}

// TestEnvoyConfigurationRefusesAmbiguousPaths checks that Envoy forwards the path by which it chose the route, and refuses paths that an API
// could read differently.
func TestEnvoyConfigurationRefusesAmbiguousPaths(t *testing.T) {
	var managers int
	var routes []*routev3.Route
	everyMessage(t, envoyBootstrap(t), func(where string, message proto.Message) {
		switch m := message.(type) {
		case *managerv3.HttpConnectionManager:
			managers++
			if !m.GetNormalizePath().GetValue() || !m.GetMergeSlashes() ||
				m.GetPathWithEscapedSlashesAction() != managerv3.HttpConnectionManager_REJECT_REQUEST {
				t.Errorf("%s: the API may get a different path from the one that is judged", where)
			}
		case *routev3.VirtualHost:
			routes = m.GetRoutes()
		}
	})
	if managers != 1 || len(routes) < 2 || routes[0].GetDirectResponse().GetStatus() != http.StatusBadRequest {
		t.Fatalf("%d connection managers; want a first route of several that answers 400, got %v", managers, routes)
	}
	refused := regexp.MustCompile("^(?:" + routes[0].GetMatch().GetSafeRegex().GetRegex() + ")$") // of the whole path, without its query
	for path, want := range map[string]bool{
		"/orders;x/admin": true, "/orders/..;/admin": true, "/orders%3bx": true, "/orders%3Bx": true, "/orders/%252e": true, "/orders%23": true,
		"/orders%3f": true, "/orders\\x": true, "/orders%5cx": true, "/orders%2fx": true, "/orders/%2E": true, "/orders%00": true, "/orders%0a": true,
		"/orders%7F": true, "/orders/%c0%ae": true, "/orders%e0%80%af": true, "/orders%F0%80%80%AF": true, "/orders#x": true, "/orders/\x7f": true,
		"/orders": false, "/orders/42/a.b..c": false, "/orders/%C3%BCber%20alles": false, "/orders/%E3%81%82/%F0%9F%98%80": false, "/orders/a:b@c,d=e!f~g": false,
	} {
		if refused.MatchString(path) != want {
			t.Errorf("%q is refused: %t", path, !want)
		}
	}
}

// TestPagesAgreeOnAmbiguousPaths compares the regular expressions for ambiguous paths in the configurations. test/gateways tests nginx's and
// Caddy's with the real gateways.
func TestPagesAgreeOnAmbiguousPaths(t *testing.T) {
	expression := regexp.MustCompile(`\^\[\^\?\]\*\(.*f0%8\)\)`)
	want := expression.FindString(page(t, "docs", "gateways", "nginx.conf"))
	if want == "" {
		t.Fatal("nginx.conf refuses no ambiguous paths")
	}
	for _, name := range []string{"Caddyfile", "ingress-nginx.md"} {
		if got := expression.FindString(page(t, "docs", "gateways", name)); got != want {
			t.Errorf("%s: %q, want that of nginx.conf, %q", name, got, want)
		}
	}
}

func envoyBootstrap(t *testing.T) *bootstrapv3.Bootstrap {
	t.Helper()
	document, err := yaml.YAMLToJSONStrict([]byte(page(t, "docs", "gateways", "envoy.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	bootstrap := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(document, bootstrap); err != nil { // unknown fields and types are errors
		t.Fatal(err)
	}
	return bootstrap
}

// everyMessage visits a message and all messages in it, including extensions packed in an Any.
func everyMessage(t *testing.T, root proto.Message, visit func(where string, message proto.Message)) {
	t.Helper()
	err := protorange.Range(root.ProtoReflect(), func(values protopath.Values) error {
		if message, ok := values.Index(-1).Value.Interface().(protoreflect.Message); ok {
			visit(values.Path.String(), message.Interface())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
