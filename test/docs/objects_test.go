package docs

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// crds lists the files with the CRDs of other projects' kinds that pages show. The files are in Go modules, whose versions the go.mod in
// pinnedIn pins.
var crds = []struct {
	pinnedIn, module string
	files            []string
}{
	{"hack/crds", "sigs.k8s.io/gateway-api", []string{
		"config/crd/standard/gateway.networking.k8s.io_gatewayclasses.yaml", "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
		"config/crd/standard/gateway.networking.k8s.io_httproutes.yaml", "config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml",
	}},
	{"hack/crds", "github.com/envoyproxy/gateway", []string{
		"charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml",
		"charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_clienttrafficpolicies.yaml",
	}},
	{"hack/crds", "github.com/argoproj/argo-cd/v3", []string{"manifests/crds/application-crd.yaml"}},
	{"hack/crds", "github.com/fluxcd/kustomize-controller", []string{"config/crd/bases/*.yaml"}},
	{"hack/crds", "github.com/fluxcd/source-controller", []string{"config/crd/bases/*.yaml"}},
	{"hack/crds", "github.com/fluxcd/helm-controller", []string{"config/crd/bases/*.yaml"}},
	{"hack/crds", "github.com/cert-manager/cert-manager", []string{"deploy/crds/cert-manager.io_*.yaml"}},
	{"hack/crds", "github.com/prometheus-operator/prometheus-operator", []string{
		"example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
		"example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
		"example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
	}},
	{"hack/traefik", "github.com/traefik/traefik/v3", []string{"docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml"}},
	{"test", "istio.io/api", []string{"kubernetes/customresourcedefinitions.gen.yaml"}},
}

// crdFiles downloads the modules if necessary and returns the paths of their files.
func crdFiles(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, c := range crds {
		command := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", c.module)
		command.Dir = filepath.Join("..", "..", c.pinnedIn)
		out, err := command.Output()
		var module struct{ Dir, Error string }
		if jsonErr := json.Unmarshal(out, &module); err != nil || jsonErr != nil || module.Dir == "" {
			t.Fatalf("%s of %s/go.mod: %v, %v, %s", c.module, c.pinnedIn, err, jsonErr, module.Error)
		}
		for _, pattern := range c.files {
			files, err := filepath.Glob(filepath.Join(module.Dir, pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("%s has no %s: %v", module.Dir, pattern, err)
			}
			found = append(found, files...)
		}
	}
	return found
}

// checkedElsewhere lists the files in docs/ that contain no objects, with the test that uses each.
var checkedElsewhere = map[string]string{
	"docs/audit-policy.yaml":                    "TestAuditPolicyLogsNoToken",
	"docs/alertmanager.yaml":                    "TestDocumentedRouteTellsTheOwner",
	"docs/gateways/nginx.conf":                  "test/gateways",
	"docs/gateways/Caddyfile":                   "test/gateways",
	"docs/gateways/traefik-static.yaml":         "test/gateways",
	"docs/gateways/kube-apiserver-webhook.yaml": "test/gateways",
	"docs/gateways/envoy.yaml":                  "TestEnvoyConfigurationIsValid",
	"docs/gateways/istio-meshconfig.yaml":       "TestIstioMeshConfigurationIsValid",
	"docs/images/grid-light.png":                "test/page",
	"docs/images/grid-dark.png":                 "test/page",
	"docs/images/token-light.png":               "test/page",
	"docs/images/token-dark.png":                "test/page",
	"docs/images/growth-start.svg":              "test/bench",
	"docs/images/growth-memory.svg":             "test/bench",
	"docs/images/growth-answers.svg":            "test/bench",
}

// TestObjectsOfPagesAreAccepted applies every object in pages, in files of docs/, and in the output of overlays to an API server, as a dry run.
func TestObjectsOfPagesAreAccepted(t *testing.T) {
	s := startServer(t)
	copied := repository(t)
	for i, b := range allBlocks(t, "yaml") {
		switch {
		case b.source() != "": // the file itself is checked
		case b.fragmentOf() == "kustomization.yaml":
			folder := filepath.Join(copied, "overlays", strconv.Itoa(i))
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(b.body()), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := s.plane.RunKubectl(t.Context(), "", "kustomize", folder)
			if err != nil {
				t.Errorf("%s:%d: %v\n%s", b.page, b.line, err, out)
				continue
			}
			s.accepts(t, b.page, out)
		case b.fragmentOf() == "values.yaml": // see TestValuesOfPagesExist
		default:
			s.accepts(t, b.page, b.text)
		}
	}
	for _, file := range objectFiles(t) {
		s.accepts(t, file, page(t, file))
	}
	if s.accepted < 20 {
		t.Errorf("only %d objects", s.accepted)
	}
}

// objectFiles returns the files in docs/ that contain objects. Every other file must be in checkedElsewhere.
func objectFiles(t *testing.T) []string {
	t.Helper()
	var found []string
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) == ".md" {
			return err
		}
		name, err := filepath.Rel(root, path)
		switch {
		case checkedElsewhere[name] != "":
		case slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)):
			found = append(found, name)
		default:
			t.Errorf("%s: no test uses this file", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// server is an API server with the product's kinds and those of other projects.
type server struct {
	plane      *controlplane.ControlPlane
	namespaces map[string]bool
	accepted   int
}

// startPlane starts a control plane, installs the product's kinds and permissions, and stops it at the end of the test. flags are
// additional flags of the API server.
func startPlane(t *testing.T, flags map[string]string) *controlplane.ControlPlane {
	t.Helper()
	plane, err := controlplane.StartInstalled(t.Context(), controlplane.Options{Logs: os.Getenv("CONTROLPLANE_LOGS"), APIServer: flags})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	return plane
}

func startServer(t *testing.T) *server {
	t.Helper()
	plane := startPlane(t, nil)
	files := crdFiles(t)
	create := make([]string, 0, 1+2*len(files))
	create = append(create, "create")
	for _, file := range files {
		create = append(create, "-f", file)
	}
	for _, args := range [][]string{create, {"wait", "--for=condition=Established", "crd", "--all", "--timeout=2m"}} {
		if out, err := plane.RunKubectl(t.Context(), "", args...); err != nil {
			t.Fatalf("CRDs of other projects: %v\n%s", err, out)
		}
	}
	return &server{plane: plane, namespaces: map[string]bool{"": true}}
}

// accepts applies a manifest as a dry run. It creates the namespaces of the objects, because a page may leave that to the reader.
func (s *server) accepts(t *testing.T, where, manifest string) {
	t.Helper()
	for _, o := range objects(t, where, manifest) {
		s.accepted++
		if namespace := o.GetNamespace(); !s.namespaces[namespace] {
			out, err := s.plane.RunKubectl(t.Context(), "", "create", "namespace", namespace)
			if err != nil && !strings.Contains(out, "AlreadyExists") {
				t.Fatalf("namespace %s: %v\n%s", namespace, err, out)
			}
			s.namespaces[namespace] = true
		}
	}
	out, err := s.plane.RunKubectl(t.Context(), manifest, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
	if err != nil {
		t.Errorf("%s: %v\n%s", where, err, out)
	}
	if strings.Contains(out, "ValidatingAdmissionPolicy 'apikey-operator-rotation-warnings'") {
		t.Errorf("%s: shows an object that users are warned about\n%s", where, out)
	}
}

// objects returns the objects of a manifest.
func objects(t *testing.T, where, manifest string) []unstructured.Unstructured {
	t.Helper()
	var found []unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		var o unstructured.Unstructured
		err := decoder.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil || o.GetAPIVersion() == "" || o.GetKind() == "" {
			t.Errorf("%s: neither an object nor a fragment of a file: %v", where, err)
			return found
		}
		found = append(found, o)
	}
}
