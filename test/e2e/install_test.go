//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// method is a way to install the product. All install into the namespace system.
type method struct {
	name               string
	install, uninstall func()
}

var chart = method{
	name: "the chart",
	install: func() {
		// Helm doesn't label the namespaces that it creates, and pods are checked when they are created.
		kubectl("create", "namespace", system)
		kubectl("label", "namespace", system, "pod-security.kubernetes.io/enforce=restricted")
		helm("install", "apikey-operator", "charts/apikey-operator", "--namespace="+system,
			"--set=image.registry="+cluster.Registry.Address, "--set=image.tag="+imageTag)
	},
	uninstall: func() {
		helm("uninstall", "apikey-operator", "--namespace="+system)
		kubectl("delete", "namespace", system)
		kubectl("delete", "-k", "config/crd") // Helm keeps CRDs
	},
}

// The CRDs of installer stay, and the keys with them.
var installer = method{
	name: "dist/install.yaml",
	install: func() {
		run([]string{"VERSION=" + imageTag, "REGISTRY=" + cluster.Registry.Address}, "hack/installer", installFolder)
		kubectl("apply", "-f", crdsFile, "-f", installFile)
	},
	uninstall: func() { kubectl("delete", "-f", installFile) },
}

// kustomize is not uninstalled.
var kustomize = method{
	name:    "config/default",
	install: func() { kubectl("apply", "-k", overlay("default", "config/default")) },
}

// outliving returns what must not change of a key and of the kinds when the product is uninstalled and its CRDs stay. The key is created
// if there is none.
func outliving() string {
	GinkgoHelper()
	kubectl("apply", "-f", "config/samples/never_expires.yaml")
	kubectl("wait", "--for=condition=Ready", "apikey/status-page", "--timeout="+patience.String())
	return kubectl("get", "apikey/status-page", "-o", "jsonpath={.metadata.uid} {.status.hash}") +
		kubectl("get", "secret/status-page", "-o", "jsonpath={.metadata.uid} {.metadata.resourceVersion}") +
		kubectl("get", "crd/apikeys.apikey-operator.io", "crd/apiroles.apikey-operator.io", "crd/apikeypolicies.apikey-operator.io",
			"-o", "jsonpath={.items[*].metadata.uid}")
}

const (
	installFolder = "bin/e2e/install"
	crdsFile      = installFolder + "/crds.yaml"
	installFile   = installFolder + "/install.yaml"
)

func helm(args ...string) {
	GinkgoHelper()
	home, err := os.MkdirTemp("", "helm-")
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = os.RemoveAll(home) }()
	kubeconfig := filepath.Join(home, "kubeconfig")
	Expect(cluster.AdminKubeconfig(kubeconfig)).To(Succeed())
	run([]string{"KUBECONFIG=" + kubeconfig, "HOME=" + home}, "bin/helm", args...)
}

// run runs a program of the repository in its root folder.
func run(environment []string, program string, args ...string) {
	GinkgoHelper()
	command := exec.CommandContext(ctx, filepath.Join(root, program), args...)
	command.Dir = root
	command.Env = append(os.Environ(), environment...)
	if out, err := command.CombinedOutput(); err != nil {
		Fail(fmt.Sprintf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out))
	}
}

// inPlace is set once the product and the quick start are installed and left for the specs that use them.
var inPlace bool

func installed() {
	protects := func(by method) {
		GinkgoHelper()
		start := time.Now()
		install(by)
		quickstart()
		if by.uninstall == nil {
			inPlace = true
		} else {
			DeferCleanup(func() { uninstall(by) })
		}
		Eventually(clientLog).Should(ContainSubstring(`"caller": "shop/orders-client"`))
		report.add("to a protected API, with "+by.name, "%.1f s", time.Since(start).Seconds())

		kubectl("-n", shop, "delete", "apikey", "orders-client")
		Eventually(func() string { return lastLine(clientLog()) }).Should(HaveSuffix("error: 401"))
		restricted(system, shop)
	}
	protectsAnAPI := func(by method) string { return "by " + by.name + " protects an API within a few commands" }

	It(protectsAnAPI(chart), func() { protects(chart) })

	var before string // what outlives the installation by installer
	It(protectsAnAPI(installer), func() {
		protects(installer)
		before = outliving()
	})

	It(protectsAnAPI(kustomize)+", and finds the keys of an earlier installation", func() {
		Expect(kubectl("get", "namespace", system, "--ignore-not-found")).To(BeEmpty(), "the earlier installation is gone")
		protects(kustomize)
		if before == "" {
			AddReportEntry("there was no earlier installation") // this spec runs alone
			return
		}
		DeferCleanup(func() { kubectl("delete", "--ignore-not-found", "-f", "config/samples/never_expires.yaml") })
		Expect(outliving()).To(Equal(before))
	})
}

// uninstall removes the quick start and the product, side by side.
func uninstall(by method) {
	GinkgoHelper()
	kubectl("delete", "--ignore-not-found", "--wait=false", "-k", overlay("quickstart", "config/samples/quickstart"))
	by.uninstall()
	kubectl("wait", "--for=delete", "namespace/"+shop, "--timeout="+patience.String())
}

// install installs the product and waits until it works.
func install(by method) {
	GinkgoHelper()
	by.install()
	available(system, "apikey-operator", "apikey-verifier")
	Expect(cluster.WaitGuarded(ctx, system, "apikey-operator")).To(Succeed())
}

// quickstart follows the quick start.
func quickstart() {
	GinkgoHelper()
	kubectl("apply", "-k", overlay("quickstart", "config/samples/quickstart"))
	available(shop, "orders", "client")
}

func available(namespace string, deployments ...string) {
	GinkgoHelper()
	for _, name := range deployments {
		kubectl("-n", namespace, "rollout", "status", "deployment/"+name, "--timeout="+patience.String())
	}
}

// verifierRolled waits until all pods of the verifier are new and available. Old ones answer gateways while they drain, with their old flags.
func verifierRolled() {
	GinkgoHelper()
	available(system, "apikey-verifier")
	Eventually(func(g Gomega) {
		list := &corev1.PodList{}
		g.Expect(admin.List(ctx, list, client.InNamespace(system), client.MatchingLabels{"app.kubernetes.io/name": "apikey-verifier"})).To(Succeed())
		g.Expect(list.Items).To(HaveLen(2))
	}).Should(Succeed())
}

func clientLog() string { return kubectl("-n", shop, "logs", "deployment/client") }

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// overlay returns a folder for kubectl -k that changes only the names of images in a folder of the repository.
func overlay(name, base string) string {
	GinkgoHelper()
	dir := filepath.Join(overlays, name)
	Expect(os.MkdirAll(dir, 0o755)).To(Succeed())
	var text strings.Builder
	_, _ = fmt.Fprintf(&text, "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../../../%s]\nimages:\n", base)
	for _, name := range slices.Sorted(maps.Keys(images)) {
		reference := images[name]
		colon := strings.LastIndex(reference, ":")
		_, _ = fmt.Fprintf(&text, "- {name: %s, newName: %q, newTag: %q}\n", name, reference[:colon], reference[colon+1:])
	}
	Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text.String()), 0o600)).To(Succeed())
	return filepath.Join("bin", "e2e", "install", name)
}

// restricted checks that the namespaces refuse pods that don't conform to the Pod Security level restricted. All pods in them were created
// after the label was set.
func restricted(namespaces ...string) {
	GinkgoHelper()
	for _, namespace := range namespaces {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "lax"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "lax", Image: images[nginxName]}}},
		}
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(MatchError(ContainSubstring(`violates PodSecurity "restricted`)))
	}
}
