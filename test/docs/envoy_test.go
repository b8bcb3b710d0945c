// Package docs holds what the pages and files of docs/ say against what it is said of, as far as that takes no control plane.
package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
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

// Envoy itself has no package to install here, so its configuration is held against Envoy's own protos and their constraints.
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
	var filters, routes, settings int
	everyMessage(t, bootstrap, func(where string, message proto.Message) {
		switch m := message.(type) {
		case *extauthzv3.ExtAuthz:
			filters++
			if m.GetTransportApiVersion() != corev3.ApiVersion_V3 || m.GetFailureModeAllow() {
				t.Errorf("%s: want ext_authz of V3 that lets nothing through when it fails", where)
			}
			if name := m.GetGrpcService().GetEnvoyGrpc().GetClusterName(); !clusters[name] {
				t.Errorf("%s: no cluster %q", where, name)
			}
		case *routev3.Route:
			routes++
			if name := m.GetRoute().GetCluster(); !clusters[name] {
				t.Errorf("%s: no cluster %q", where, name)
			}
		case *extauthzv3.ExtAuthzPerRoute:
			settings++
			roles := strings.Split(m.GetCheckSettings().GetContextExtensions()["roles"], ",")
			if problem := verify.NewRoute(roles, nil).Problem; problem != "" {
				t.Errorf("%s: the verifier does not understand %q: %s", where, roles, problem)
			}
		}
	})
	if filters != 1 || routes == 0 || settings != routes {
		t.Errorf("%d filters, %d routes, %d of them with roles", filters, routes, settings)
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

// everyMessage visits a message and all that it holds, the extensions that are packed in an Any too.
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
