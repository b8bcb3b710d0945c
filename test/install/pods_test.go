package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// These specs hold for every way to install.
var _ = Describe("The pods of an installation", func() {
	// No network in the tests enforces NetworkPolicies, so the spec checks them by their semantics: a pod that a policy selects is reachable only
	// by the peers of a rule, on the ports of that rule. So each port except the kubelet's must be in one rule, and each rule must name a peer.
	DescribeTable("are reached by gateways and scrapers alone in production",
		func(all func() objects, peers map[string]networkingv1.NetworkPolicyPeer) {
			installed := all()
			deployments, policies := ofKind(installed, "Deployment", &appsv1.Deployment{}), ofKind(installed, "NetworkPolicy", &networkingv1.NetworkPolicy{})
			Expect(deployments).To(HaveLen(2))
			Expect(policies).To(HaveLen(2))
			for _, deployment := range deployments {
				var rules []networkingv1.NetworkPolicyIngressRule
				selecting := 0
				for _, policy := range policies {
					selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
					Expect(err).NotTo(HaveOccurred())
					if policy.Namespace == deployment.Namespace && selector.Matches(labels.Set(deployment.Spec.Template.Labels)) {
						selecting++
						rules = policy.Spec.Ingress
						Expect(policy.Spec.PolicyTypes).To(ContainElement(networkingv1.PolicyTypeIngress))
					}
				}
				Expect(selecting).To(Equal(1), deployment.Name)

				ports := map[string]int{}
				for _, rule := range rules {
					Expect(rule.Ports).NotTo(BeEmpty(), "a rule without ports applies to all ports")
					who := "gateways"
					for _, port := range rule.Ports {
						ports[port.Port.String()]++
						if port.Port.String() == "metrics" {
							who = "scrapers"
						}
					}
					Expect(rule.From).To(ConsistOf(peers[who]), "a rule without peers applies to everybody")
				}
				for _, port := range deployment.Spec.Template.Spec.Containers[0].Ports {
					want := 1
					if port.Name == "probes" { // a pod's node can always reach it
						want = 0
					}
					Expect(ports[port.Name]).To(Equal(want), "%s: port %s", deployment.Name, port.Name)
					delete(ports, port.Name)
				}
				Expect(ports).To(BeEmpty(), "%s has no such ports", deployment.Name)
			}
		},
		Entry("by kustomize", func() objects { return kustomized(production) }, labelledPeers),
		Entry("by the chart", func() objects { return mustRender(productionValues()) }, labelledPeers),
		Entry("by the chart with all options", func() objects { return mustRender(everything) }, map[string]networkingv1.NetworkPolicyPeer{
			"gateways": {NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "gateways"}}},
			"scrapers": {NamespaceSelector: &metav1.LabelSelector{}},
		}),
	)

	DescribeTable("have Go keep its memory below the container's limit, with room for what is not Go's",
		func(all func() objects) {
			deployments := ofKind(all(), "Deployment", &appsv1.Deployment{})
			Expect(deployments).NotTo(BeEmpty())
			for _, deployment := range deployments {
				for _, container := range deployment.Spec.Template.Spec.Containers {
					limit := container.Resources.Limits.Memory().Value()
					Expect(limit).To(BeNumerically(">", 0), deployment.Name)
					text := environment(container)["GOMEMLIMIT"]
					bytes, err := strconv.ParseInt(strings.TrimSuffix(text, "B"), 10, 64)
					Expect(err).NotTo(HaveOccurred(), deployment.Name)
					Expect(bytes).To(And(BeNumerically(">", limit*90/100), BeNumerically("<", limit*97/100)), deployment.Name)
					// A process exits at its start if Go can't parse GOMEMLIMIT.
					program := exec.CommandContext(ctx, filepath.Join(root, "bin", "apikey-"+container.Name), "--version")
					program.Env = append(os.Environ(), "GOMEMLIMIT="+text)
					out, err := program.CombinedOutput()
					Expect(err).NotTo(HaveOccurred(), string(out))
				}
			}
		},
		Entry("by kustomize", func() objects { return kustomized(defaults) }),
		Entry("by kustomize in production", func() objects { return kustomized(production) }),
		Entry("by the chart", func() objects { return mustRender("") }),
		Entry("by the chart with all options", func() objects { return mustRender(everything) }),
		Entry("by the chart with the user's own limits", func() objects {
			return mustRender("operator: {resources: {limits: {memory: 1G}}}\nverifier: {resources: {limits: {memory: 2Gi}}}")
		}),
	)
})

// labelledPeers are the peers where namespaces have the documented labels.
var labelledPeers = map[string]networkingv1.NetworkPolicyPeer{
	"gateways": {NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"apikey-operator.io/gateway": "true"}}},
	"scrapers": {NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"apikey-operator.io/scraper": "true"}}},
}

// ofKind returns the objects of a kind, converted to the type of like.
func ofKind[T client.Object](all objects, kind string, like T) []T {
	GinkgoHelper()
	var found []T
	for _, object := range all {
		if object.GetKind() == kind {
			typed, ok := like.DeepCopyObject().(T)
			Expect(ok).To(BeTrue())
			Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, typed)).To(Succeed())
			found = append(found, typed)
		}
	}
	return found
}

// environment returns a container's environment variables as a kubelet sets them: limits are rounded up to whole divisors, and $(NAME) is
// replaced by the value of an earlier variable.
func environment(container corev1.Container) map[string]string {
	GinkgoHelper()
	found := map[string]string{}
	for _, variable := range container.Env {
		value := variable.Value
		for name, earlier := range found {
			value = strings.ReplaceAll(value, "$("+name+")", earlier)
		}
		if from := variable.ValueFrom; from != nil {
			Expect(from.ResourceFieldRef).NotTo(BeNil(), variable.Name)
			Expect(from.ResourceFieldRef.Resource).To(Equal("limits.memory"))
			divisor := from.ResourceFieldRef.Divisor.Value()
			value = strconv.FormatInt((container.Resources.Limits.Memory().Value()+divisor-1)/divisor, 10)
		}
		found[variable.Name] = value
	}
	return found
}
