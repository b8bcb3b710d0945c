package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

var _ = Describe("The operator's service account", func() {
	may := func(verb, group, resource, subresource string) bool {
		GinkgoHelper()
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: "default", Verb: verb, Group: group, Resource: resource, Subresource: subresource, Name: "x",
			},
		}}
		Expect(self.Create(ctx, review)).To(Succeed())
		return review.Status.Allowed
	}

	It("may do what it must, and nothing else to Secrets and ApiKeys", func() {
		all := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "issue"}
		allowed := func(group, resource, subresource string) []string {
			var verbs []string
			for _, verb := range all {
				if may(verb, group, resource, subresource) {
					verbs = append(verbs, verb)
				}
			}
			return verbs
		}
		Expect(allowed("", "secrets", "")).To(ConsistOf("get", "create", "patch", "delete"))
		Expect(allowed("apikey-operator.io", "apikeys", "")).To(ConsistOf("get", "list", "watch", "delete", "issue"))
		Expect(allowed("apikey-operator.io", "apikeys", "status")).To(ConsistOf("patch"))
		Expect(allowed("apikey-operator.io", "apikeys", "finalizers")).To(BeEmpty())
		Expect(allowed("apikey-operator.io", "apiroles", "")).To(ConsistOf("get", "list", "watch"))
		Expect(allowed("apikey-operator.io", "apiroles", "status")).To(ConsistOf("patch"))
		Expect(allowed("apikey-operator.io", "apikeypolicies", "")).To(ConsistOf("get", "list", "watch"))
		Expect(allowed("", "namespaces", "")).To(ConsistOf("get", "list", "watch"))
		Expect(allowed("", "pods", "")).To(BeEmpty())
		Expect(allowed("", "configmaps", "")).To(BeEmpty())
		Expect(allowed("", "serviceaccounts", "token")).To(BeEmpty())
		Expect(allowed("coordination.k8s.io", "leases", "")).To(BeEmpty(), "outside its own namespace")
	})

	It("may change no lease of its namespace but its own", func() {
		for _, name := range []string{harness.Lease, "of-another"} {
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: controlplane.Namespace, Name: name}}
			Expect(client.IgnoreAlreadyExists(admin.Create(ctx, lease))).To(Succeed())
			DeferCleanup(func() error { return client.IgnoreNotFound(admin.Delete(ctx, lease)) })
		}
		own := &coordinationv1.Lease{}
		Expect(self.Get(ctx, client.ObjectKey{Namespace: controlplane.Namespace, Name: harness.Lease}, own)).To(Succeed())
		Expect(self.Update(ctx, own, client.DryRunAll)).To(Succeed())
		own.Name = "of-another"
		Expect(apierrors.IsForbidden(self.Update(ctx, own, client.DryRunAll))).To(BeTrue())
		Expect(apierrors.IsForbidden(self.Get(ctx, client.ObjectKeyFromObject(own), own))).To(BeTrue())
	})

	It("may not list Secrets", func() {
		Expect(apierrors.IsForbidden(self.List(ctx, &corev1.SecretList{}))).To(BeTrue())
		Expect(apierrors.IsForbidden(self.List(ctx, &corev1.SecretList{}, client.InNamespace("default")))).To(BeTrue())
	})
})

var _ = Describe("The operator's binary", func() {
	start := func(args ...string) *controlplane.Operator {
		GinkgoHelper()
		// At the highest log level, the search for tokens covers everything that can be logged.
		operator, err := plane.StartOperator(ctx, witness, append(args, "--log-level=10")...)
		Expect(err).NotTo(HaveOccurred())
		return operator
	}

	It("issues, expires and deletes keys with only the permissions of config/rbac", func() {
		operator := start("--token-prefix=acme", "--ttl-after-expired=0s")
		ns := namespace()
		lasting, passing := build.ApiKey(ns, "lasting"), build.ApiKey(ns, "passing", build.After("2s"))
		create(lasting)
		create(passing)
		Eventually(func(g Gomega) { g.Expect(reason(reread(lasting))).To(Equal(v1alpha1.ReasonIssued)) }).Should(Succeed())
		expectIssued(lasting)
		Expect(lasting.Status.TokenHint).To(HavePrefix("acme_"))
		Eventually(func() bool { return exists(passing) }).Should(BeFalse())
		Eventually(func() []string {
			told := &corev1.EventList{}
			Expect(admin.List(ctx, told, client.InNamespace(ns))).To(Succeed())
			var reasons []string
			for _, event := range told.Items {
				if event.InvolvedObject.Name == "passing" {
					reasons = append(reasons, event.Reason)
				}
			}
			return reasons
		}).Should(ContainElements("Issued", "Expired", "Collected"))
		Expect(operator.Stop()).To(Succeed(), "the operator exits with 0 on SIGTERM")
	})

	It("uses what a GitOps tool wrote to a key, and leaves all else in its metadata as it is", func() {
		operator := start("--ttl-after-expired=0s")
		DeferCleanup(func() { Expect(operator.Stop()).To(Succeed()) })
		ns := namespace()
		owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "owner"}}
		create(owner)
		metadata := func(key *v1alpha1.ApiKey) {
			key.Labels = map[string]string{"team": "shop", "tier": "back"}
			key.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "none of ours"}
			key.Finalizers = []string{"example.com/held"}
			key.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}
		}
		lasting, declared, kept := build.ApiKey(ns, "lasting"), build.ApiKey(ns, "declared", build.After("1s")), build.ApiKey(ns, "kept", build.After("1s"))
		passing := build.ApiKey(ns, "passing", build.After("1s"))
		metadata(lasting)
		metadata(declared)
		metadata(kept)
		declared.Annotations["argocd.argoproj.io/tracking-id"] = "shop:apikey-operator.io/ApiKey:" + ns + "/declared"
		kept.Annotations["apikey-operator.io/keep"] = "true"
		keys := []*v1alpha1.ApiKey{lasting, declared, kept}
		written := make([]metav1.ObjectMeta, 0, len(keys))
		for _, key := range keys {
			create(key)
			written = append(written, *key.ObjectMeta.DeepCopy())
		}
		create(passing)
		Eventually(func() bool { return exists(passing) }).Should(BeFalse(), "a key that nothing keeps is deleted")
		Eventually(func() v1alpha1.Reason { return reason(reread(lasting)) }).Should(Equal(v1alpha1.ReasonIssued))
		for _, key := range keys[1:] {
			Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonExpired))
		}
		for i, key := range keys {
			Expect(key.DeletionTimestamp).To(BeNil())
			Expect(key.Labels).To(Equal(written[i].Labels))
			Expect(key.Annotations).To(Equal(written[i].Annotations))
			Expect(key.Finalizers).To(Equal(written[i].Finalizers))
			Expect(key.OwnerReferences).To(Equal(written[i].OwnerReferences))
			key.Finalizers = nil
			Expect(admin.Update(ctx, key)).To(Succeed())
		}
	})

	DescribeTable("expires, deletes Secrets and collects, and issues nothing, until a kind comes that says what may be issued",
		func(plural, named string) {
			ns := namespace()
			passing := build.ApiKey(ns, "passing", build.After("1s"))
			collected := build.ApiKey(ns, "collected", build.After("1s"), build.TTL("0s"))
			shown := build.ApiKey(ns, "shown", build.Secret(v1alpha1.ApiKeySecret{RevealFor: "1s"}))
			clock := fakeClock() // never advances, so that only the binary expires and deletes
			o := options()
			o.Clock = clock
			for _, key := range []*v1alpha1.ApiKey{passing, collected, shown} {
				create(key)
				settle(controllers(o), key)
				expectIssued(key)
			}

			crd := filepath.Join(plane.Root, "config", "crd", "bases", "apikey-operator.io_"+plural+".yaml")
			kubectl := func(args ...string) {
				GinkgoHelper()
				out, err := plane.RunKubectl(ctx, "", args...)
				Expect(err).NotTo(HaveOccurred(), out)
			}
			install := func() {
				GinkgoHelper()
				kubectl("apply", "-f", crd)
				kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", crd)
			}
			kubectl("delete", "-f", crd)
			DeferCleanup(install)

			output := gbytes.NewBuffer()
			operator, err := plane.LaunchOperator(ctx, io.MultiWriter(witness, output))
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(func() { Expect(operator.Stop()).To(Succeed(), "the operator kept running") })
			waiting := build.ApiKey(ns, "waiting")
			create(waiting)

			Eventually(func() v1alpha1.Reason { return reason(reread(passing)) }).Should(Equal(v1alpha1.ReasonExpired))
			Expect(exists(secretOf(passing))).To(BeFalse())
			Eventually(func() bool { return exists(collected) }).Should(BeFalse())
			Eventually(func() bool { return exists(secretOf(shown)) }).Should(BeFalse())
			Expect(reason(reread(shown))).To(Equal(v1alpha1.ReasonIssued))
			Eventually(func() v1alpha1.Reason { return reason(reread(waiting)) }).Should(Equal(v1alpha1.ReasonIssuing))
			Expect(condition(waiting, v1alpha1.ConditionReady).Message).To(And(
				ContainSubstring("the operator can't read "+named+" yet"), ContainSubstring("config/crd")))
			Expect(waiting.Status.Hash).To(BeEmpty())
			Expect(exists(secretOf(waiting))).To(BeFalse())
			Expect(string(output.Contents())).To(And(ContainSubstring(named), ContainSubstring("no matches for kind")))
			probe := func(path string) (int, string) {
				GinkgoHelper()
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, operator.Probes+path, nil)
				Expect(err).NotTo(HaveOccurred())
				response, err := http.DefaultClient.Do(request)
				Expect(err).NotTo(HaveOccurred())
				body, err := io.ReadAll(response.Body)
				Expect(err).NotTo(HaveOccurred())
				Expect(response.Body.Close()).To(Succeed())
				return response.StatusCode, string(body)
			}
			code, body := probe("/readyz")
			Expect(code).To(Equal(http.StatusInternalServerError))
			Expect(body).To(ContainSubstring("[-]rules failed"))
			_, body = probe("/readyz/rules")
			Expect(body).To(And(ContainSubstring(named), ContainSubstring("no matches for kind")))
			code, _ = probe("/healthz")
			Expect(code).To(Equal(http.StatusOK))

			install()
			Eventually(func() v1alpha1.Reason { return reason(reread(waiting)) }).Should(Equal(v1alpha1.ReasonIssued))
			expectIssued(waiting)
			Eventually(func() int { code, _ := probe("/readyz"); return code }).Should(Equal(http.StatusOK))
		},
		Entry("ApiRole", "apiroles", "ApiRoles"),
		Entry("ApiKeyPolicy", "apikeypolicies", "ApiKeyPolicies"),
	)

	It("finishes the keys that it is issuing on SIGTERM, and leaves none half issued", func() {
		operator := start()
		ns := namespace()
		const n = 200
		for i := range n {
			create(build.ApiKey(ns, fmt.Sprintf("key-%d", i)))
		}
		Expect(operator.Stop()).To(Succeed())
		keys := &v1alpha1.ApiKeyList{}
		Expect(admin.List(ctx, keys, client.InNamespace(ns))).To(Succeed())
		for i := range keys.Items {
			Expect(reason(&keys.Items[i])).To(BeElementOf(v1alpha1.Reason(""), v1alpha1.ReasonIssued), "each key is issued or untouched")
		}
		operator = start()
		Eventually(func(g Gomega) {
			g.Expect(admin.List(ctx, keys, client.InNamespace(ns))).To(Succeed())
			for i := range keys.Items {
				g.Expect(reason(&keys.Items[i])).To(Equal(v1alpha1.ReasonIssued))
			}
		}).Should(Succeed())
		Expect(operator.Stop()).To(Succeed())
	})

	It("serves metrics over TLS, only to callers that may read them", SpecPriority(1), func() {
		operator := start("--expiry-metric-per-key")
		DeferCleanup(func() { Expect(operator.Stop()).To(Succeed()) })
		insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 10 * time.Second}
		scrape := func(bearer string) (int, string) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, operator.Metrics+"/metrics", nil)
			Expect(err).NotTo(HaveOccurred())
			if bearer != "" {
				request.Header.Set("Authorization", "Bearer "+bearer)
			}
			var response *http.Response
			Eventually(func() (err error) { // the metrics listener opens after the probes' listener
				response, err = insecure.Do(request)
				return err
			}).Should(Succeed())
			body, err := io.ReadAll(response.Body)
			Expect(err).NotTo(HaveOccurred())
			Expect(response.Body.Close()).To(Succeed())
			return response.StatusCode, string(body)
		}
		ns := namespace()
		create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "prometheus"}})
		reader, err := plane.As(ctx, ns, "prometheus")
		Expect(err).NotTo(HaveOccurred())

		code, _ := scrape("")
		Expect(code).To(Equal(http.StatusUnauthorized))
		code, _ = scrape("garbage")
		Expect(code).To(Equal(http.StatusUnauthorized))
		code, _ = scrape(reader.BearerToken)
		Expect(code).To(Equal(http.StatusForbidden))
		create(&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: ns},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "apikey-operator-metrics-reader"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "prometheus"}},
		})
		key := build.ApiKey(ns, "measured", build.Attribute("owner", `team "shop"`), build.Attribute("plan", "gold"))
		create(key)
		Eventually(func(g Gomega) {
			code, body := scrape(reader.BearerToken)
			g.Expect(code).To(Equal(http.StatusOK))
			for _, line := range []string{
				"apikey_operator_issued_total ", "apikey_operator_expired_total ", "apikey_operator_deleted_total ",
				`apikey_operator_callers_put_off_total{endpoint="metrics"} 0`, "apikey_operator_secrets_withdrawn_total ", "apikey_operator_secret_conflicts_total ",
				"apikey_operator_issue_duration_seconds_count ", "apikey_operator_expiry_lateness_seconds_count ",
				`apikey_operator_keys{state="Issued"} `, `apikey_operator_keys{state="NotAllowed"} `,
				`apikey_operator_refused_total{reason="UnknownRole"} `, "apikey_operator_keys_out_of_policy ", "apikey_operator_clock_skew_seconds ",
				fmt.Sprintf(`apikey_operator_key_expiry_timestamp_seconds{name="measured",namespace="%s",owner="team \"shop\""} `, ns),
			} {
				g.Expect(body).To(ContainSubstring("\n" + line))
			}
		}).Should(Succeed())
	})

	DescribeTable("says what is wrong with a flag's value",
		func(flag, explanation string) {
			output, err := exec.CommandContext(ctx, filepath.Join(plane.Root, "bin", "apikey-operator"), flag).CombinedOutput()
			Expect(err).To(HaveOccurred())
			Expect(string(output)).To(ContainSubstring(explanation))
		},
		Entry(nil, "--token-prefix=AK", `--token-prefix=AK: invalid token prefix "AK": must be 2 to 16 lower-case letters and digits`),
		Entry(nil, "--ttl-after-expired=1w", `--ttl-after-expired=1w: invalid duration "1w": must be days, hours, minutes and seconds`),
		Entry(nil, "--namespaces=", "--namespaces=: must name at least one namespace; for all namespaces, remove the flag"),
		Entry(nil, "--namespaces=Team_A", `--namespaces=Team_A: "Team_A" is not a namespace name: must be at most 63 lower-case letters`),
		Entry(nil, "--workers=0", "--workers=0: must be 1 to 256"),
		Entry(nil, "--kube-api-qps=20", "--kube-api-burst=0: must be 1 or more"),
		Entry(nil, "--leader-elect-lease-duration=5s", "--leader-elect-lease-duration=5s: must be more than --leader-elect-renew-deadline (10s)"),
		Entry(nil, "--metrics-bind-address=nowhere", "--metrics-bind-address=nowhere: must be host:port, :port, or 0 to disable it"),
		Entry(nil, "--log-level=11", "--log-level=11: must be 0 to 10"),
		Entry(nil, "--log-format=xml", "--log-format=xml: must be json or console"),
		Entry(nil, "--kubeconfig=/does/not/exist", "find a cluster: "),
	)
})
