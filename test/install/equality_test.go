package install

import (
	"encoding/json"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The chart and config/ describe the same objects. The spec compares what the API server makes of both, so that it doesn't matter whether
// one of them spells out a default.
var _ = Describe("The chart is what kustomize builds", Ordered, ContinueOnFailure, func() {
	var c *cluster
	BeforeAll(func() {
		c = newCluster()
		c.namespace(releaseNamespace)
	})

	DescribeTable("object by object, except for labels",
		func(kustomization, values string) {
			want, have := map[string]any{}, map[string]any{}
			for _, object := range kustomized(kustomization) {
				if object.GetKind() != "Namespace" {
					want[describe(object)] = c.stored(object)
				}
			}
			for _, object := range mustRender(values) {
				have[describe(object)] = c.stored(object)
			}
			Expect(len(want)).To(BeNumerically(">", 25))
			Expect(have).To(HaveLen(len(want)))
			for name, object := range want {
				Expect(have).To(HaveKey(name))
				Expect(have[name]).To(BeComparableTo(object), name)
			}
		},
		Entry("as installed by default", defaults, ""),
		Entry("in production", production, productionValues()),
	)

	It("has its own labels, which select its pods and no others", func() {
		for _, object := range mustRender("") {
			Expect(object.GetLabels()).To(And(
				HaveKeyWithValue("app.kubernetes.io/managed-by", "Helm"), HaveKeyWithValue("app.kubernetes.io/instance", release),
				HaveKeyWithValue("app.kubernetes.io/name", HavePrefix("apikey-")), HaveKey("helm.sh/chart"),
			), describe(object))
			if object.GetKind() == "CustomResourceDefinition" {
				Expect(object.GetAnnotations()).To(HaveKeyWithValue("helm.sh/resource-policy", "keep"))
			}
		}
	})
})

// stored returns what the API server would store for an object, without labels and without what differs from one creation to the next.
func (c *cluster) stored(object *unstructured.Unstructured) map[string]any {
	GinkgoHelper()
	o := object.DeepCopy()
	Expect(c.Create(ctx, o, client.DryRunAll, client.FieldValidation("Strict"))).To(Succeed(), describe(object))
	for _, path := range [][]string{
		{"status"}, {"metadata", "uid"}, {"metadata", "creationTimestamp"}, {"metadata", "managedFields"}, {"metadata", "generation"},
		{"metadata", "resourceVersion"}, {"metadata", "annotations", "helm.sh/resource-policy"}, {"spec", "clusterIP"}, {"spec", "clusterIPs"},
	} {
		unstructured.RemoveNestedField(o.Object, path...)
	}
	dropLabels(o.Object)
	if rules, ok := o.Object["rules"].([]any); ok { // the order doesn't matter
		slices.SortFunc(rules, func(a, b any) int { return strings.Compare(mustJSON(a), mustJSON(b)) })
	}
	return o.Object
}

// dropLabels removes the labels that identify an installation, at any depth. Other labels stay and are compared.
func dropLabels(value any) {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range []string{
			"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart",
		} {
			if _, isText := v[key].(string); isText {
				delete(v, key)
			}
		}
		for key, child := range v {
			dropLabels(child)
			if labels, isMap := child.(map[string]any); isMap && key == "labels" && len(labels) == 0 {
				delete(v, key)
			}
		}
	case []any:
		for _, child := range v {
			dropLabels(child)
		}
	}
}

func mustJSON(value any) string {
	GinkgoHelper()
	text, err := json.Marshal(value)
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}
