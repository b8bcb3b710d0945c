package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"
)

var fileComment = regexp.MustCompile(`^(?:#|//) (\S+)$`)

// fragmentOf returns the file that the first line of a block names, or "" if it names none.
func (b block) fragmentOf() string {
	first, _, _ := strings.Cut(b.text, "\n")
	if match := fileComment.FindStringSubmatch(first); match != nil {
		return match[1]
	}
	return ""
}

// body returns a fragment without the line that names its file.
func (b block) body() string {
	_, rest, _ := strings.Cut(b.text, "\n")
	return rest
}

// source returns the file that must contain the fragment: relative to its page, or to the repository's root. It returns "" if there is none.
func (b block) source() string {
	for _, path := range []string{filepath.Join(filepath.Dir(b.page), b.fragmentOf()), b.fragmentOf()} {
		if info, err := os.Stat(filepath.Join("..", "..", path)); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// TestFragmentsArePartsOfTheirFiles makes sure that pages show what other tests run.
func TestFragmentsArePartsOfTheirFiles(t *testing.T) {
	var checked int
	for _, b := range allBlocks(t, "yaml", "go", "nginx", "caddyfile") {
		name := b.fragmentOf()
		switch {
		case name != "" && b.source() != "":
			checked++
			if !isPart(b.body(), page(t, b.source())) {
				t.Errorf("%s:%d: %s does not contain these lines", b.page, b.line, b.source())
			}
		case name == "kustomization.yaml", name == "values.yaml":
		case b.language != "yaml" || name != "":
			t.Errorf("%s:%d: this is a fragment of the file %q, which doesn't exist", b.page, b.line, name)
		}
	}
	if checked == 0 {
		t.Error("no fragment was found, so the test tests nothing")
	}
}

// isPart reports whether a file contains all lines of part in sequence, with the same additional indentation.
func isPart(part, file string) bool {
	want, have := lines(part), lines(file)
	outdent(want)
	for i := range have {
		if i+len(want) > len(have) {
			return false
		}
		got := slices.Clone(have[i : i+len(want)])
		outdent(got)
		if slices.Equal(got, want) {
			return true
		}
	}
	return false
}

// outdent removes the indentation that all lines have in common.
func outdent(lines []string) {
	space, first := "", true
	for _, line := range lines {
		if line == "" {
			continue
		}
		own := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if first {
			space, first = own, false
		}
		for !strings.HasPrefix(own, space) {
			space = space[:len(space)-1]
		}
	}
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], space)
	}
}

func TestIsPart(t *testing.T) {
	const file = "a:\n  b: 1\n\n  c: 2\nd: 3\n"
	for part, want := range map[string]bool{
		"b: 1\n\nc: 2\n": true, "a:\n  b: 1\n": true, "d: 3\n": true, file: true,
		"b: 1\nc: 2\n": false, "a:\nb: 1\n": false, "b: 2\n": false, "c: 2\nd: 3\n": false,
	} {
		if isPart(part, file) != want {
			t.Errorf("%q: want %t", part, want)
		}
	}
}

// TestValuesOfPagesExist checks that fragments of values.yaml use only values that the chart has.
func TestValuesOfPagesExist(t *testing.T) {
	const chart = "charts/apikey-operator/values.yaml"
	var fragments []block
	for _, b := range allBlocks(t, "yaml") {
		if b.fragmentOf() == "values.yaml" && b.source() == "" {
			fragments = append(fragments, b)
		}
	}
	if len(fragments) == 0 {
		t.Fatal("no page shows values of the chart")
	}
	known := object(t, chart, page(t, chart))
	for _, b := range fragments {
		for _, name := range unknown(object(t, b.page, b.body()), known, "") {
			t.Errorf("%s:%d: the chart has no value %s", b.page, b.line, name)
		}
	}
}

func object(t *testing.T, where, text string) map[string]any {
	t.Helper()
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &values); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	return values
}

// unknown returns the names of values that are not among the known ones. Below a known value that is empty, anything is allowed.
func unknown(values, known map[string]any, path string) []string {
	var names []string
	for name, value := range values {
		theirs, ok := known[name]
		if !ok {
			names = append(names, path+name)
			continue
		}
		below, isObject := value.(map[string]any)
		theirsBelow, _ := theirs.(map[string]any)
		if isObject && len(theirsBelow) > 0 {
			names = append(names, unknown(below, theirsBelow, path+name+".")...)
		}
	}
	return names
}

// TestIstioMeshConfigurationIsValid validates the mesh configuration with Istio's protos, because there is no CRD for it. Unknown fields are
// errors.
func TestIstioMeshConfigurationIsValid(t *testing.T) {
	document, err := yaml.YAMLToJSONStrict([]byte(page(t, "docs", "gateways", "istio-meshconfig.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	mesh := &meshv1alpha1.MeshConfig{}
	if err := protojson.Unmarshal(document, mesh); err != nil {
		t.Fatal(err)
	}
	policy := object(t, "istio.yaml", page(t, "docs", "gateways", "istio.yaml"))
	spec, _ := policy["spec"].(map[string]any)
	wanted, _ := spec["provider"].(map[string]any)
	for _, provider := range mesh.GetExtensionProviders() {
		grpc := provider.GetEnvoyExtAuthzGrpc()
		if provider.GetName() != wanted["name"] || grpc.GetPort() == 0 || grpc.GetFailOpen() || grpc.GetTimeout() == nil || grpc.GetStatusOnError() != "503" {
			t.Errorf("provider %q: want %q over gRPC, which refuses everything when it fails", provider.GetName(), wanted["name"])
		}
	}
	if len(mesh.GetExtensionProviders()) != 1 {
		t.Errorf("%d providers", len(mesh.GetExtensionProviders()))
	}
}
