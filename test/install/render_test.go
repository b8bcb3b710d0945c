package install

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"helm.sh/helm/v4/pkg/chart"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

const (
	release          = "apikey-operator"
	releaseNamespace = "apikey-operator-system"
)

var chartFolder = filepath.Join(root, "charts", "apikey-operator")

// objects are the objects of one rendering.
type objects []*unstructured.Unstructured

// render renders the chart as helm does, with values given as YAML. Where these don't say otherwise, the images are loaded into the nodes.
func render(name, namespace, values string) (objects, error) {
	chart, err := loadChart()
	if err != nil {
		return nil, err
	}
	return renderChart(chart, name, namespace, values)
}

// loadChart loads the chart with image.preloaded=true among its defaults: without a registry and that, nothing is rendered.
func loadChart() (chart.Charter, error) {
	ours, err := loader.Load(chartFolder)
	if err != nil {
		return nil, err
	}
	image, ok := ours.Values["image"].(map[string]any)
	if !ok {
		return nil, errors.New("values.yaml has no image")
	}
	image["preloaded"] = true
	return ours, nil
}

// notes are what helm prints after an install with values given as YAML.
func notes(values string) string {
	GinkgoHelper()
	chart, err := loadChart()
	Expect(err).NotTo(HaveOccurred())
	files, err := renderFiles(chart, release, releaseNamespace, values)
	Expect(err).NotTo(HaveOccurred())
	text := files[filepath.Join("apikey-operator", "templates", "NOTES.txt")]
	Expect(text).To(ContainSubstring("Wait until everything is ready"))
	return text
}

// renderChart renders a chart, and those that are parts of it.
func renderChart(chart chart.Charter, name, namespace, values string) (objects, error) {
	files, err := renderFiles(chart, name, namespace, values)
	if err != nil {
		return nil, err
	}
	var found objects
	for path, text := range files {
		if strings.HasSuffix(path, ".yaml") {
			more, err := parse(text)
			if err != nil {
				return nil, errors.Join(errors.New(path), err)
			}
			found = append(found, more...)
		}
	}
	slices.SortFunc(found, func(a, b *unstructured.Unstructured) int { return cmp.Compare(describe(a), describe(b)) })
	return found, nil
}

// renderFiles returns the text of each rendered template, by its path.
func renderFiles(chart chart.Charter, name, namespace, values string) (map[string]string, error) {
	given := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(values), &given); err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: name, Namespace: namespace, IsInstall: true, Revision: 1}
	all, err := util.ToRenderValues(chart, given, options, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(chart, all)
}

// The kustomizations that the chart's values files have their like in.
const (
	defaults   = "resources: [../../config/default]"
	production = defaults + "\ncomponents: [../../config/components/production]"
)

// kustomized builds a kustomization as if it were two folders below the repository's root.
func kustomized(text string) objects {
	GinkgoHelper()
	folder := filepath.Join(root, "bin", "kustomized")
	Expect(os.MkdirAll(folder, 0o755)).To(Succeed())
	defer func() { Expect(os.RemoveAll(folder)).To(Succeed()) }()
	Expect(os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o600)).To(Succeed())
	kubectl := (&controlplane.ControlPlane{Root: root}).Kubectl()
	out, err := exec.CommandContext(ctx, kubectl, "kustomize", folder).Output()
	Expect(err).NotTo(HaveOccurred())
	found, err := parse(string(out))
	Expect(err).NotTo(HaveOccurred())
	return found
}

// mustRender is render for valid values.
func mustRender(values string) objects {
	GinkgoHelper()
	found, err := render(release, releaseNamespace, values)
	Expect(err).NotTo(HaveOccurred())
	return found
}

// parse reads a stream of YAML documents. It refuses duplicate keys.
func parse(text string) (objects, error) {
	var found objects
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewBufferString(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		object := map[string]any{}
		if err := yaml.UnmarshalStrict(document, &object); err != nil {
			return nil, err
		}
		if len(object) > 0 {
			found = append(found, &unstructured.Unstructured{Object: object})
		}
	}
}

// productionValues returns the chart's values for production.
func productionValues() string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(chartFolder, "values-production.yaml"))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// named returns the object with a kind and name, converted to the type of object. The spec fails if there is none.
func named[T client.Object](all objects, kind, name string, object T) T {
	GinkgoHelper()
	for _, found := range all {
		if found.GetKind() == kind && found.GetName() == name {
			Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object, object)).To(Succeed())
			return object
		}
	}
	Fail("no " + kind + " " + name + " among " + strings.Join(all.names(), ", "))
	return object
}

// kinds returns the kinds of the objects, without duplicates.
func (o objects) kinds() []string {
	kinds := make([]string, 0, len(o))
	for _, object := range o {
		kinds = append(kinds, object.GetKind())
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

func (o objects) names() []string {
	names := make([]string, 0, len(o))
	for _, object := range o {
		names = append(names, describe(object))
	}
	return names
}

// field returns a field of an object as JSON.
func field(object *unstructured.Unstructured, path ...string) string {
	GinkgoHelper()
	value, _, err := unstructured.NestedFieldNoCopy(object.Object, path...)
	Expect(err).NotTo(HaveOccurred())
	text, err := json.Marshal(value)
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}
