package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// Each spec goes from the first installation to the last uninstallation with the commands of docs/install.md. The Deployments start no pods
// here, so the specs start the operator's binary with the Deployment's arguments, as its service account.
var _ = Describe("The life of an installation", func() {
	var (
		c   *cluster
		key *v1alpha1.ApiKey
		was issued
	)
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "apikeys.apikey-operator.io"}}
	clusterRole := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "apikey-operator"}}
	deployment := func(name string) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: releaseNamespace, Name: name}}
	}

	// issue lets the installed operator issue a key, and stops the operator.
	issue := func() {
		GinkgoHelper()
		c.waitForKinds()
		Expect(c.WaitGuarded(ctx, releaseNamespace, "apikey-operator")).To(Succeed())
		operator := c.startOperator(releaseNamespace, "apikey-operator")
		key = build.ApiKey("default", "lasting", build.Never())
		Expect(c.Create(ctx, key)).To(Succeed())
		Eventually(c.reasonOf(key)).Should(Equal(v1alpha1.ReasonIssued))
		Expect(operator.Stop()).To(Succeed())
		was = c.stateOf(key)
	}
	expectGone := func(objects ...client.Object) {
		GinkgoHelper()
		for _, object := range objects {
			Eventually(func() bool { return c.exists(object) }).Should(BeFalse(), object.GetName())
		}
	}
	// expectUnchanged lets the installed operator reconcile a key from before. The key must stay issued as it was.
	expectUnchanged := func() {
		GinkgoHelper()
		operator := c.startOperator(releaseNamespace, "apikey-operator")
		newer := build.ApiKey("default", "newer")
		Expect(c.Create(ctx, newer)).To(Succeed())
		Eventually(c.reasonOf(newer)).ShouldNot(BeElementOf(v1alpha1.Reason(""), v1alpha1.ReasonIssuing))
		Expect(operator.Stop()).To(Succeed())
		Expect(c.stateOf(key)).To(Equal(was))
		Expect(c.Delete(ctx, newer)).To(Succeed())
	}
	expectEverythingGone := func() {
		GinkgoHelper()
		c.shell(root, "delete-all-keys")
		expectGone(crd)
		expectGone(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.SecretName()}})
	}

	It("by kubectl apply -k leaves keys alone when it is upgraded and when it is uninstalled", func() {
		c = newCluster()
		earlier := checkout(func(folder string) {
			withoutDisplayName(filepath.Join(folder, "config", "crd", "bases", "apikey-operator.io_apikeys.yaml"))
		})
		c.shell(earlier, "kubectl-install")
		issue()
		Expect(c.hasDisplayName()).To(BeFalse())

		By("upgrading")
		c.shell(root, "kubectl-upgrade")
		Expect(c.hasDisplayName()).To(BeTrue())
		expectUnchanged()

		By("uninstalling")
		c.shell(root, "kubectl-uninstall")
		expectGone(clusterRole, deployment("apikey-operator"), deployment("apikey-verifier"))
		Expect(c.stateOf(key)).To(Equal(was))

		By("installing again, with Helm")
		c.shell(root, "kubectl-to-helm")
		expectUnchanged()
		c.shell(root, "helm-uninstall")
		expectEverythingGone()
	})

	It("by dist/crds.yaml and dist/install.yaml is that of config/default with a release's images, and leaves keys alone when it ends", func() {
		c = newCluster()
		folder := checkout(func(string) {})
		makeInstaller(filepath.Join(folder, "dist"), "VERSION=1.2.3", "REGISTRY=registry.example/team")
		read := func(name string) objects {
			GinkgoHelper()
			text, err := os.ReadFile(filepath.Join(folder, "dist", name))
			Expect(err).NotTo(HaveOccurred())
			found, err := parse(strings.NewReplacer("registry.example/team/", "", ":1.2.3", ":devel").Replace(string(text)))
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Count(string(text), "image: registry.example/team/apikey-")).To(Equal(len(ofKind(found, "Deployment", &appsv1.Deployment{}))))
			return found
		}
		crds, rest := read("crds.yaml"), read("install.yaml")
		Expect(crds.kinds()).To(ConsistOf("CustomResourceDefinition"))
		Expect(rest.kinds()).NotTo(ContainElement("CustomResourceDefinition"))
		Expect(ofKind(rest, "Deployment", &appsv1.Deployment{})).To(HaveLen(2))
		Expect(slices.Concat(crds, rest)).To(ConsistOf(kustomized(defaults)))

		c.shell(folder, "installer-install")
		issue()

		By("deleting what one deletes without reading on")
		c.kubectl("delete", "-f", filepath.Join(folder, "dist", "install.yaml"))
		expectGone(clusterRole, deployment("apikey-operator"), deployment("apikey-verifier"))
		for _, kind := range ofKind(crds, "CustomResourceDefinition", &apiextensionsv1.CustomResourceDefinition{}) {
			Expect(c.exists(kind)).To(BeTrue(), kind.Name)
		}
		Expect(c.stateOf(key)).To(Equal(was))

		By("installing again")
		c.shell(folder, "installer-install")
		Expect(c.WaitGuarded(ctx, releaseNamespace, "apikey-operator")).To(Succeed())
		expectUnchanged()

		By("uninstalling as documented")
		c.shell(folder, "installer-uninstall")
		expectGone(clusterRole, deployment("apikey-operator"), deployment("apikey-verifier"))
		Expect(c.stateOf(key)).To(Equal(was))
	})

	It("by Helm leaves keys alone when it is upgraded and when it is uninstalled", func() {
		c = newCluster()
		earlier := checkout(func(folder string) {
			withoutDisplayName(filepath.Join(folder, "charts", "apikey-operator", "files", "crd", "apikey-operator.io_apikeys.yaml"))
		})
		out := c.shell(earlier, "helm-install")
		Expect(out).To(ContainSubstring("kubectl label namespace apikey-operator-system pod-security.kubernetes.io/enforce=restricted"))
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: releaseNamespace}}
		Expect(c.exists(namespace)).To(BeTrue())
		Expect(namespace.Labels).To(HaveKeyWithValue("pod-security.kubernetes.io/enforce", "restricted"))
		issue()
		Expect(c.hasDisplayName()).To(BeFalse())

		By("upgrading the chart with its CRDs, then to the values for production")
		c.shell(root, "helm-upgrade")
		Expect(c.hasDisplayName()).To(BeTrue())
		expectUnchanged()
		c.shell(root, "helm-production")
		operator := deployment("apikey-operator")
		Expect(c.exists(operator)).To(BeTrue())
		Expect(operator.Spec.Template.Spec.Containers[0].Args).To(ContainElements("--require-policy", "--require-catalogue"))
		expectUnchanged()

		By("uninstalling")
		c.shell(root, "helm-uninstall")
		expectGone(clusterRole, deployment("apikey-operator"), deployment("apikey-verifier"))
		Expect(c.exists(crd)).To(BeTrue())
		Expect(c.stateOf(key)).To(Equal(was))

		By("installing again")
		c.shell(root, "helm-install")
		expectUnchanged()

		By("deleting everything")
		c.shell(root, "helm-uninstall")
		expectEverythingGone()
	})
})
