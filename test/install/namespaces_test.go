package install

import (
	"net/http"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// There are two releases, each for a namespace of its own, and a third namespace without an operator.
var _ = Describe("An operator of some namespaces", Ordered, func() {
	var c *cluster
	const ours, theirs, nobodys = "team-a", "team-b", "team-c"
	var ourLog, theirLog *gbytes.Buffer

	install := func(name, namespace, values string) {
		GinkgoHelper()
		kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(c.AdminKubeconfig(kubeconfig)).To(Succeed())
		arguments := []string{"install", name, chartFolder, "--kubeconfig", kubeconfig, "--namespace", namespace, "--create-namespace",
			"--set", values}
		out, err := exec.CommandContext(ctx, helm, arguments...).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
	}
	start := func(namespace, name, watched string) *gbytes.Buffer {
		GinkgoHelper()
		log := gbytes.NewBuffer()
		operator, err := c.StartOperatorAs(ctx, namespace, name, log, "--namespaces="+watched)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { Expect(operator.Stop()).To(Succeed()) })
		return log
	}
	create := func(object client.Object) {
		GinkgoHelper()
		Expect(c.Create(ctx, object)).To(Succeed())
	}
	// token returns a key's token. Specs compare only HTTP statuses, so that a failure prints no token.
	token := func(key *v1alpha1.ApiKey) string {
		GinkgoHelper()
		secret := &corev1.Secret{}
		Expect(c.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}, secret)).To(Succeed())
		return string(secret.Data[key.SecretKey()])
	}

	BeforeAll(func() {
		c = newCluster()
		for _, name := range []string{ours, theirs, nobodys} {
			c.namespace(name)
		}
		install(release, releaseNamespace, "image.preloaded=true,namespaces={"+ours+"}")
		install("apikey-operator-b", "operator-b",
			"image.preloaded=true,namespaces={"+theirs+"},crds.enabled=false,admissionPolicies.install=false,roles.install=false")
		c.waitForKinds()
		// The admission policies are in force, and must accept these operators.
		refused := func(policy, secretType string, args ...string) {
			GinkgoHelper()
			secret := `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}, "type": "` + secretType + `"}`
			Eventually(func() string {
				out, _ := c.RunKubectl(ctx, secret, append([]string{"-n", ours, "create", "--dry-run=server", "-f", "-"}, args...)...)
				return out
			}).Should(ContainSubstring("ValidatingAdmissionPolicy 'apikey-operator-" + policy + "'"))
		}
		refused("token-secrets", "apikey-operator.io/token")
		refused("limits", "Opaque", "--as=system:serviceaccount:"+releaseNamespace+":"+release)
		ourLog = start(releaseNamespace, release, ours)
		theirLog = start("operator-b", "apikey-operator-b", theirs)
	})

	It("may do nothing with the keys and Secrets of other namespaces", func() {
		config, err := c.As(ctx, releaseNamespace, release)
		Expect(err).NotTo(HaveOccurred())
		self, err := client.New(config, client.Options{Scheme: harness.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		allowed := func(namespace, group, resource, subresource string) []string {
			GinkgoHelper()
			var verbs []string
			for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "issue"} {
				review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
					ResourceAttributes: &authorizationv1.ResourceAttributes{
						Namespace: namespace, Verb: verb, Group: group, Resource: resource, Subresource: subresource,
					},
				}}
				Expect(self.Create(ctx, review)).To(Succeed())
				if review.Status.Allowed {
					verbs = append(verbs, verb)
				}
			}
			return verbs
		}
		const group = "apikey-operator.io"
		Expect(allowed(ours, group, "apikeys", "")).To(ConsistOf("get", "list", "watch", "delete", "issue"))
		Expect(allowed(ours, group, "apikeys", "status")).To(ConsistOf("patch"))
		Expect(allowed(ours, "", "secrets", "")).To(ConsistOf("get", "create", "patch", "delete"))
		Expect(allowed(ours, "events.k8s.io", "events", "")).To(ConsistOf("create", "patch"))
		for _, elsewhere := range []string{"", theirs, nobodys, releaseNamespace} {
			Expect(allowed(elsewhere, group, "apikeys", "")).To(ConsistOf("issue"), elsewhere)
			Expect(allowed(elsewhere, group, "apikeys", "status")).To(BeEmpty(), elsewhere)
			Expect(allowed(elsewhere, "", "secrets", "")).To(BeEmpty(), elsewhere)
			Expect(allowed(elsewhere, "events.k8s.io", "events", "")).To(BeEmpty(), elsewhere)
		}
		Expect(allowed("", group, "apiroles", "")).To(ConsistOf("get", "list", "watch"))
		Expect(allowed("", group, "apiroles", "status")).To(BeEmpty())
	})

	It("issues and expires the keys in its namespaces, whatever happens in others, and counts no keys", func() {
		create(build.ApiRole("org.permission.customer.read"))
		create(build.Policy("labelled", []string{"*"}, build.Namespaces("keys", "allowed")))
		mine, passing := build.ApiKey(ours, "mine"), build.ApiKey(ours, "passing", build.After("7s"), build.TTL("0s"))
		others, lost := build.ApiKey(theirs, "others"), build.ApiKey(nobodys, "lost")
		for _, key := range []*v1alpha1.ApiKey{mine, passing, others, lost} {
			create(key)
		}
		Eventually(c.reasonOf(mine)).Should(Equal(v1alpha1.ReasonNotAllowed))
		Eventually(c.reasonOf(others)).Should(Equal(v1alpha1.ReasonNotAllowed))
		// Policies depend on the labels of namespaces. A change in a namespace that is not the operator's must not affect it.
		for _, name := range []string{nobodys, theirs, ours} {
			namespace := &corev1.Namespace{}
			Expect(c.Get(ctx, client.ObjectKey{Name: name}, namespace)).To(Succeed())
			Expect(c.Patch(ctx, namespace, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"keys":"allowed"}}}`)))).To(Succeed())
		}
		Eventually(c.reasonOf(mine)).Should(Equal(v1alpha1.ReasonIssued))
		Eventually(c.reasonOf(others)).Should(Equal(v1alpha1.ReasonIssued))
		// This takes longer than the delay after which keys would be counted.
		Eventually(func() bool { return c.exists(passing) }).Should(BeFalse())

		Expect(c.reasonOf(lost)()).To(BeEmpty())
		role := build.ApiRole("org.permission.customer.read")
		Expect(c.exists(role)).To(BeTrue())
		Expect(role.Status.Keys).To(BeNil())
		for _, log := range []*gbytes.Buffer{ourLog, theirLog} {
			Expect(string(log.Contents())).To(ContainSubstring(`"Starting"`))
			Expect(string(log.Contents())).NotTo(Or(ContainSubstring("forbidden"), ContainSubstring(`"level":"error"`)))
		}
	})

	It("has a verifier that accepts only the keys in its namespaces", func() {
		at, err := controlplane.FreeVerifierAddresses()
		Expect(err).NotTo(HaveOccurred())
		log := gbytes.NewBuffer()
		verifier, err := c.StartVerifierAs(ctx, releaseNamespace, "apikey-verifier", log, at, "--namespaces="+ours)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(verifier.Stop)
		Expect(verifier.WaitHTTP(ctx, verifier.Probes+"/readyz")).To(Succeed())
		ask := func(key *v1alpha1.ApiKey) int {
			GinkgoHelper()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, verifier.HTTP+"/auth?role="+key.Spec.Roles[0], nil)
			Expect(err).NotTo(HaveOccurred())
			request.Header.Set("Authorization", "Bearer "+token(key))
			response, err := http.DefaultClient.Do(request)
			Expect(err).NotTo(HaveOccurred())
			Expect(response.Body.Close()).To(Succeed())
			return response.StatusCode
		}
		Expect(ask(build.ApiKey(ours, "mine"))).To(Equal(http.StatusOK))
		Expect(ask(build.ApiKey(theirs, "others"))).To(Equal(http.StatusUnauthorized))
		Expect(string(log.Contents())).NotTo(ContainSubstring("forbidden"))
	})

	It("says which of its namespaces it may not read", func() {
		kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(c.KubeconfigAs(ctx, releaseNamespace, release, kubeconfig)).To(Succeed())
		log := gbytes.NewBuffer()
		operator, err := controlplane.StartProcess(exec.CommandContext(ctx, filepath.Join(root, "bin", "apikey-operator"),
			"--kubeconfig="+kubeconfig, "--namespaces="+ours+","+nobodys, "--leader-elect=false",
			"--metrics-bind-address=0", "--health-probe-bind-address=0"), log)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(operator.Stop)
		Eventually(log).Should(gbytes.Say(`forbidden: .* cannot list resource ."apikeys." .* in the namespace ."team-c."`))
		By("ending on SIGTERM, though its cache never synced")
		Expect(operator.Stop()).To(Succeed())
	})
})
