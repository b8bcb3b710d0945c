package gateways

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// journal is the log of one process, at its default level.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	_, _ = output.Write(p) // where it is searched for tokens
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// about returns the lines that speak of use.
func (j *journal) about() (lines []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		if strings.Contains(line, "use of keys") || strings.Contains(line, "use of a key") || strings.Contains(line, "ApiKeyUsage") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// journaled starts a verifier with a log and a pod of its own, until the end of the spec. Without a pod, it would report by the same object
// as the suite's verifier.
func journaled(args ...string) (*controlplane.Verifier, *journal) {
	GinkgoHelper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: controlplane.Namespace, GenerateName: "journaled-"},
		Spec: corev1.PodSpec{
			ServiceAccountName: controlplane.VerifierAccount,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{Name: "verifier", Image: "apikey-verifier", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		},
	}
	Expect(admin.Create(ctx, pod)).To(Succeed())
	DeferCleanup(func() error { return admin.Delete(ctx, pod, client.GracePeriodSeconds(0)) })
	config, err := plane.AsPod(ctx, pod)
	Expect(err).NotTo(HaveOccurred())
	return journaledAs(config, args...)
}

// journaledAs is like journaled for an account that is not that of the verifier.
func journaledAs(config *rest.Config, args ...string) (*controlplane.Verifier, *journal) {
	GinkgoHelper()
	kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(controlplane.WriteKubeconfig(config, kubeconfig)).To(Succeed())
	args = append(args, "--kubeconfig="+kubeconfig)
	log := &journal{}
	v, err := plane.StartVerifier(ctx, log, addresses(), append([]string{"--drain-delay=0s", "--trusted-proxies=" + trustedProxy + "/32"}, args...)...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(v.Stop)
	Expect(v.WaitHTTP(ctx, v.Probes+"/readyz")).To(Succeed())
	return v, log
}

// journaledOperator starts an operator with a log of its own, while the suite's is stopped. It ends with the spec at the latest.
func journaledOperator(args ...string) (log *journal, stop func()) {
	GinkgoHelper()
	log = &journal{}
	other, err := plane.StartOperator(ctx, log, append([]string{"--min-rotation-every=1s"}, args...)...)
	Expect(err).NotTo(HaveOccurred())
	stop = sync.OnceFunc(func() { Expect(other.Stop()).To(Succeed()) })
	DeferCleanup(stop)
	return log, stop
}

func isRecorded(key *v1alpha1.ApiKey) bool {
	GinkgoHelper()
	Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
	return key.Status.LastUsedAt != nil
}

// expectSameAnswers asks two verifiers by all protocols about tokens of all kinds, and compares the answers byte for byte.
func expectSameAnswers(one, two *controlplane.Verifier) {
	GinkgoHelper()
	ns := namespace()
	_, accepted := issue(ns, "accepted")
	_, owned := issue(ns, "owned", build.Attribute("owner", "team-shop"))
	_, elsewhere := issue(ns, "elsewhere", build.CIDRs(insideCIDR))
	_, other := issue(ns, "other", build.Roles(roleOther))
	rotated, retiring := issue(ns, "rotated")
	current := requestRotation(rotated, "1;overlap=1h")
	suspended, off := issue(ns, "suspended")
	suspend(suspended, true)
	revoked, gone := issue(ns, "revoked")
	revoke(revoked)
	expired := issueExpiring(ns, nil)
	texts := map[string]string{
		"accepted": accepted, "with attributes": owned, "of another network": elsewhere, "of another role": other,
		"retiring": retiring, "current": current, "suspended": off, "revoked": gone, "expired": expired, "unknown": unknown(), "malformed": "ak_x",
	}
	first, second := protocols(one), protocols(two)
	for i := range first {
		for _, known := range []string{accepted, owned, retiring, current} {
			Eventually(func() bool { return first[i].about(known).accepted && second[i].about(known).accepted }).Should(BeTrue())
		}
		for _, refused := range []string{off, gone, expired} {
			Eventually(func() bool { return first[i].about(refused).accepted || second[i].about(refused).accepted }).Should(BeFalse())
		}
		for kind, text := range texts {
			same := first[i].about(text).text == second[i].about(text).text
			Expect(same).To(BeTrue(), "%s answers for a token that is %s as by the other verifier", first[i].protocol, kind)
		}
	}
}

// failedReports returns how often a verifier has failed to report.
func failedReports(v *controlplane.Verifier) func() float64 {
	return func() float64 {
		GinkgoHelper()
		n, err := strconv.ParseFloat(metric(v, `apikey_verifier_usage_reports_total{result="failed"}`), 64)
		Expect(err).NotTo(HaveOccurred())
		return n
	}
}

var _ = Describe("Where one side does not record the use of keys, no answer changes:", Label("releases"), SpecPriority(1), func() {
	It("a verifier that does not report is silent, and what it accepts is not seen", func() {
		ns := namespace()
		quiet, log := journaled("--report-usage=false")
		key, text := issue(ns, "not-seen")
		seen, other := issue(ns, "seen")
		c := httpClient(outside)
		Eventually(func() int { return auth(c, quiet, text) }).Should(Equal(200))
		Eventually(func() int { return auth(c, verifier, other) }).Should(Equal(200))
		Eventually(func() bool { return isRecorded(seen) }).Should(BeTrue())
		Expect(isRecorded(key)).To(BeFalse())
		expectSameAnswers(quiet, verifier)
		Expect(log.about()).To(BeEmpty())
	})

	It("a verifier that may not report says so once", func() {
		account := namespace()
		rules := []rbacv1.PolicyRule{
			{APIGroups: []string{"apikey-operator.io"}, Resources: []string{"apikeys", "apiroles"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
			{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
		}
		Expect(admin.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: account}, Rules: rules})).To(Succeed())
		Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: account}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: account},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: account, Name: "default"}},
		})).To(Succeed())
		config, err := plane.As(ctx, account, "default")
		Expect(err).NotTo(HaveOccurred())
		v, log := journaledAs(config)
		expectSameAnswers(v, verifier)
		Eventually(failedReports(v)).Should(BeNumerically(">=", 2))
		Expect(log.about()).To(ConsistOf(And(
			ContainSubstring("requests are answered as always"), ContainSubstring("check that config/crd, config/policy and config/verifier are applied"),
			ContainSubstring("cannot patch resource"),
		)))
	})

	It("an operator that does not record leaves the report alone, and another one records it", func() {
		ns := namespace()
		withoutOperator()
		log, stop := journaledOperator("--usage-writes-per-second=0")
		v, reports := journaled()
		key, text := issue(ns, "later")
		c := httpClient(outside)
		Eventually(func() int { return auth(c, v, text) }).Should(Equal(200))
		reported := func() bool {
			list := &v1alpha1.ApiKeyUsageList{}
			Expect(admin.List(ctx, list, client.InNamespace(controlplane.Namespace))).To(Succeed())
			for _, report := range list.Items {
				for _, use := range report.Uses {
					if use.UID == string(key.UID) {
						return true
					}
				}
			}
			return false
		}
		Eventually(reported).Should(BeTrue())
		expectSameAnswers(v, verifier)
		Expect(isRecorded(key)).To(BeFalse())
		Expect(log.about()).To(BeEmpty())
		Expect(reports.about()).To(BeEmpty())
		stop()
		journaledOperator()
		Eventually(func() bool { return isRecorded(key) }).Should(BeTrue())
	})

	It("kinds of an older release are told once by each side, and use is recorded once they are updated", func() {
		ns := namespace()
		kinds := filepath.Join(plane.Root, "config", "crd", "bases")
		apply := func() {
			out, err := plane.RunKubectl(ctx, "", "apply", "--server-side", "--force-conflicts", "-f", kinds)
			Expect(err).NotTo(HaveOccurred(), out)
		}
		DeferCleanup(apply)
		withoutOperator()
		withoutUse(filepath.Join(kinds, "apikey-operator.io_apikeys.yaml"))
		usages := &unstructured.Unstructured{}
		usages.SetGroupVersionKind(crdKind)
		usages.SetName("apikeyusages.apikey-operator.io")
		Expect(admin.Delete(ctx, usages)).To(Succeed())
		Eventually(func() error { return admin.List(ctx, &v1alpha1.ApiKeyUsageList{}) }).ShouldNot(Succeed())

		operatorLog, _ := journaledOperator()
		v, verifierLog := journaled()
		key, text := issue(ns, "older")
		expectSameAnswers(v, verifier)
		Eventually(failedReports(v)).Should(BeNumerically(">=", 2))
		Eventually(operatorLog.about).ShouldNot(BeEmpty())
		Expect(operatorLog.about()).To(ConsistOf(ContainSubstring("the last use of keys is not recorded; check that config/crd is applied")))
		Expect(verifierLog.about()).To(ConsistOf(ContainSubstring("check that config/crd, config/policy and config/verifier are applied")))

		By("adding the kind of reports, but not the field of the status")
		out, err := plane.RunKubectl(ctx, "", "apply", "-f", filepath.Join(kinds, "apikey-operator.io_apikeyusages.yaml"))
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(auth(httpClient(outside), v, text)).To(Equal(200))
		Eventually(verifierLog.about).Should(ConsistOf(ContainSubstring("Failed"), ContainSubstring("Reporting the use of keys works again")))
		Eventually(operatorLog.about).Should(ContainElement(ContainSubstring("the API server dropped status.lastUsedAt: apply config/crd of this version")))
		Expect(isRecorded(key)).To(BeFalse())

		By("updating both")
		apply()
		Eventually(func() bool { return isRecorded(key) }).Should(BeTrue())
		Eventually(operatorLog.about).Should(HaveExactElements(
			ContainSubstring("Failed to watch ApiKeyUsages"), ContainSubstring("Failed to record"), ContainSubstring("Recording the use of keys works again"),
		))
	})
})

var crdKind = schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}

// withoutUse applies a CRD of ApiKeys whose status can't say when a key was last used, as in releases before that was recorded.
func withoutUse(path string) {
	GinkgoHelper()
	text, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	crd := map[string]any{}
	Expect(yaml.Unmarshal(text, &crd)).To(Succeed())
	removed := withoutField(crd, "lastUsedAt")
	Expect(removed).To(BeNumerically(">=", 3))
	text, err = json.Marshal(crd)
	Expect(err).NotTo(HaveOccurred())
	out, err := plane.RunKubectl(ctx, string(text), "apply", "--server-side", "--force-conflicts", "-f", "-")
	Expect(err).NotTo(HaveOccurred(), out)
	Eventually(func() string {
		out, err := plane.RunKubectl(ctx, "", "explain", "apikeys.status")
		Expect(err).NotTo(HaveOccurred(), out)
		return out
	}).ShouldNot(ContainSubstring("lastUsedAt"))
}

// withoutField removes the properties with a name from a schema, and the rules and columns that name it. It returns how many it removed.
func withoutField(value any, name string) (removed int) {
	switch value := value.(type) {
	case map[string]any:
		for key, child := range value {
			if key == name {
				delete(value, key)
				removed++
				continue
			}
			list, isList := child.([]any)
			if !isList {
				removed += withoutField(child, name)
				continue
			}
			kept := make([]any, 0, len(list))
			for _, item := range list {
				if object, isObject := item.(map[string]any); isObject && (mentions(object["rule"], name) || mentions(object["jsonPath"], name)) {
					removed++
					continue
				}
				removed += withoutField(item, name)
				kept = append(kept, item)
			}
			value[key] = kept
		}
	}
	return removed
}

func mentions(value any, name string) bool {
	return strings.Contains(fmt.Sprint(value), name)
}
