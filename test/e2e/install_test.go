//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
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

// method is a way to install the product. All end up in the namespace of system.
type method struct {
	name               string
	install, uninstall func()
}

var kustomize = method{
	name:      "config/default",
	install:   func() { kubectl("apply", "-k", overlay("default", "config/default")) },
	uninstall: func() { kubectl("delete", "-k", overlay("default", "config/default")) },
}

var methods = []method{kustomize}

func installed() {
	for _, by := range methods {
		It("by "+by.name+", it protects an API within a few commands", func() {
			start := time.Now()
			install(by)
			DeferCleanup(by.uninstall)
			quickstart()
			DeferCleanup(func() {
				kubectl("delete", "--ignore-not-found", "-k", overlay("quickstart", "config/samples/quickstart"))
			})
			Eventually(clientLog).Should(ContainSubstring(`"caller": "shop/orders-client"`))
			report.add("from nothing to a protected API, by "+by.name, "%.1f s", time.Since(start).Seconds())

			kubectl("-n", shop, "delete", "apikey", "orders-client")
			Eventually(func() string { return lastLine(clientLog()) }).Should(HaveSuffix("error: 401"))
			restricted(system, shop)
		})
	}
}

// install waits until the product is at work.
func install(by method) {
	GinkgoHelper()
	by.install()
	available(system, "apikey-operator", "apikey-verifier")
	Expect(cluster.WaitGuarded(ctx, system, "apikey-operator")).To(Succeed())
}

// quickstart does what a newcomer is told to.
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

func clientLog() string { return kubectl("-n", shop, "logs", "deployment/client") }

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// overlay is a folder for kubectl -k that changes nothing of a folder of the repository but the names of images.
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

// restricted checks that no pod could come into these namespaces that does not conform to the pod-security level restricted. All pods in
// there came after the label.
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
