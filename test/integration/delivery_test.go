package integration

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

var _ = Describe("A key whose Secret is refused", func() {
	// spent counts the requests for a namespace, without events. It starts with the given request.
	spent := func(network *harness.Network, from int, ns string) map[string]int {
		counts := map[string]int{}
		for _, r := range network.Requests()[from:] {
			if r.Namespace == ns && r.Resource != "events" {
				name := r.Method + " " + r.Resource
				if r.DryRun {
					name += " (dry run)"
				}
				counts[name]++
			}
		}
		return counts
	}
	const dryRun, create1, status = "POST secrets (dry run)", "POST secrets", "PATCH apikeys/status"

	It("is told so once; then one dry run asks for all of its namespace, less and less often, and nothing is written or minted", SpecPriority(1), func() {
		const n = 300
		ns := governed()
		quota := quota(ns, 0)
		createFlood(ns, n)
		o := options()
		o.Network = &harness.Network{}
		stop := running(o)
		Eventually(counted).WithArguments(ns, v1alpha1.ReasonDeliveryRefused).Should(Equal(n))
		first := spent(o.Network, 0, ns)
		AddReportEntry("until all were told", fmt.Sprintf("%d keys: %v", n, first))
		Expect(first[create1]).To(BeNumerically("<=", workers), "creates that had begun before the first refusal")
		Expect(first[status]).To(BeNumerically("<=", n+workers), "one refusal per key, and one commit for each create")
		Expect(digests(ns)).To(BeZero())

		// The operator keeps trying, with nothing but dry runs.
		asked := func(network *harness.Network, from int) func() int {
			return func() int { return spent(network, from, ns)[dryRun] }
		}
		from := len(o.Network.Requests())
		started := time.Now()
		Eventually(asked(o.Network, from)).Should(BeNumerically(">=", 3))
		Expect(spent(o.Network, from, ns)).To(HaveLen(1), "nothing but dry runs")
		Expect(asked(o.Network, from)()).To(BeNumerically("<=", 1+int(time.Since(started)/time.Second)), "per namespace, not per key")
		stop()

		By("a restart")
		o.Network = &harness.Network{}
		stop = running(o)
		Eventually(asked(o.Network, 0)).Should(BeNumerically(">=", 2))
		Expect(spent(o.Network, 0, ns)).To(HaveLen(1), "nothing but dry runs")
		Expect(asked(o.Network, 0)()).To(BeNumerically("<", 10))

		By("room for some")
		const some = 20
		from = len(o.Network.Requests())
		allow(quota, some)
		// The quota controller recounts from a cache that may lag, and then admits a few Secrets more than the quota says.
		Eventually(counted, 3*time.Minute).WithArguments(ns, v1alpha1.ReasonIssued).Should(BeNumerically(">=", some))
		Eventually(func() int { return counted(ns, v1alpha1.ReasonIssued) + counted(ns, v1alpha1.ReasonDeliveryRefused) }).Should(Equal(n))
		issued := counted(ns, v1alpha1.ReasonIssued)
		secrets := &corev1.SecretList{}
		Expect(admin.List(ctx, secrets, client.InNamespace(ns))).To(Succeed())
		Expect(secrets.Items).To(HaveLen(issued))
		Expect(issued).To(BeNumerically("<=", some+workers))
		after := spent(o.Network, from, ns)
		AddReportEntry("for "+strconv.Itoa(issued)+" more", after)
		Expect(after[create1]-issued).To(BeNumerically("<=", workers), "failed creates that had begun before the last refusal")

		By("room for all")
		Expect(admin.Delete(ctx, quota)).To(Succeed())
		Eventually(counted, 3*time.Minute).WithArguments(ns, v1alpha1.ReasonIssued).Should(Equal(n))
		stop()
	})

	It("gets a new message when another rule refuses it, but not when only numbers in the refusal change", func() {
		clock := fakeClock()
		o := options()
		o.Clock = clock
		c := controllers(o)
		ns := namespace()
		others := []*corev1.Secret{secretOf(build.ApiKey(ns, "first-other")), secretOf(build.ApiKey(ns, "second-other"))}
		for _, other := range others {
			create(other)
		}
		quota := quota(ns, 2)
		key := build.ApiKey(ns, "full")
		create(key)
		look := func() {
			GinkgoHelper()
			clock.Step(10 * time.Minute)
			_, err := c.Pass(ctx, key)
			Expect(err).NotTo(HaveOccurred())
		}
		look()
		Expect(condition(key, v1alpha1.ConditionReady).Message).To(ContainSubstring("used: count/secrets=2"))
		told := key.ResourceVersion
		// In this order, each state of the quota refuses the Secret, whichever of them admission knows.
		allow(quota, 1)
		Eventually(func() string { hard := reread(quota).Status.Hard["count/secrets"]; return hard.String() }).Should(Equal("1"))
		Expect(admin.Delete(ctx, others[0])).To(Succeed())
		Eventually(func() string { used := reread(quota).Status.Used["count/secrets"]; return used.String() }).Should(Equal("1"))
		look()
		Expect(reread(key).ResourceVersion).To(Equal(told))

		Expect(admin.Delete(ctx, quota)).To(Succeed())
		refuseSecrets(ns, "full")
		look()
		Expect(condition(key, v1alpha1.ConditionReady).Message).To(ContainSubstring("refused by the test"))
	})

	It("holds up no other key of its namespace, if it was refused for itself", func() {
		ns := governed()
		refuseSecrets(ns, "bad")
		o := options()
		o.Network = &harness.Network{}
		stop := running(o)
		bad := build.ApiKey(ns, "bad")
		create(bad)
		Eventually(func() v1alpha1.Reason { return reason(reread(bad)) }).Should(Equal(v1alpha1.ReasonDeliveryRefused))
		for i := range 5 {
			good := build.ApiKey(ns, fmt.Sprintf("good-%d", i))
			create(good)
			Eventually(func() v1alpha1.Reason { return reason(reread(good)) }).Should(Equal(v1alpha1.ReasonIssued))
		}
		Expect(reason(reread(bad))).To(Equal(v1alpha1.ReasonDeliveryRefused))
		stop()
		counts := spent(o.Network, 0, ns)
		Expect(counts[create1]).To(Equal(1+5), "refused once")
		Expect(counts[status]).To(Equal(2+2*5), "the other keys' deliveries cause only dry runs for it")
	})

	It("is retried even if an old cluster's webhook doesn't allow dry runs", func() {
		clock := fakeClock()
		o := options()
		o.Clock = clock
		o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if r.DryRun {
				return harness.BadRequest
			}
			return harness.None
		}}
		c := controllers(o)
		ns := namespace()
		quota := quota(ns, 0)
		key := build.ApiKey(ns, "unasked")
		create(key)
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonDeliveryRefused))

		Expect(admin.Delete(ctx, quota)).To(Succeed())
		Eventually(func() v1alpha1.Reason {
			clock.Step(10 * time.Minute)
			_, err := c.Pass(ctx, key)
			Expect(err).NotTo(HaveOccurred())
			return reason(reread(key))
		}).Should(Equal(v1alpha1.ReasonIssued))
		expectIssued(key)
	})

	It("mints no new token for each retry while the API server fails", func() {
		failing := true
		o := options()
		o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if failing && r.Method == http.MethodPost && r.Resource == "secrets" {
				return harness.LostRequest
			}
			return harness.None
		}}
		c := controllers(o)
		key := build.ApiKey(namespace(), "failing")
		create(key)
		for range 5 {
			_, err := c.Pass(ctx, key)
			Expect(err).To(HaveOccurred())
		}
		Expect(spent(o.Network, 0, key.Namespace)[status]).To(Equal(1), "the first commit")
		failing = false
		settle(c, key)
		expectIssued(key)
	})

	// FLOOD is the number of keys, and SPREAD the time over which the expiry times are spread. The figures in docs/performance.md are from
	// FLOOD=10000 SPREAD=60s.
	It("holds up no issue and no expiry of others, however many of them wait", func() {
		n, spread := number("FLOOD", 500), 10*time.Second
		if text := os.Getenv("SPREAD"); text != "" {
			var err error
			spread, err = time.ParseDuration(text)
			Expect(err).NotTo(HaveOccurred())
		}
		flood, calm := governed(), governed()
		quota(flood, 0)
		createFlood(flood, n)
		o := options()
		o.Network = &harness.Network{}
		started := time.Now()
		running(o)
		Eventually(counted, 10*time.Minute, time.Second).WithArguments(flood, v1alpha1.ReasonDeliveryRefused).Should(Equal(n))
		AddReportEntry("told", fmt.Sprintf("%d keys in %s: %v", n, time.Since(started).Round(time.Second), spent(o.Network, 0, flood)))

		before, looked := len(o.Network.Requests()), passes()
		events, err := harness.Watch(ctx, plane.Admin, &v1alpha1.ApiKeyList{}, client.InNamespace(calm))
		Expect(err).NotTo(HaveOccurred())
		defer events.Stop()
		const passing, fresh = 100, 10
		// The lifetime counts from the commit, so that a key that a busy machine creates late is still issued before it expires.
		for i := range passing {
			lifetime := spread/2 + spread*time.Duration(i)/passing
			create(build.ApiKey(calm, fmt.Sprintf("passing-%d", i), build.After(v1alpha1.Duration(fmt.Sprintf("%ds", int(lifetime.Seconds()))))))
		}
		var created [fresh]time.Time
		for i := range fresh {
			created[i] = time.Now()
			create(build.ApiKey(calm, fmt.Sprintf("fresh-%d", i)))
		}
		issued, expired := map[string]time.Time{}, map[string]time.Duration{}
		deadline := time.After(spread + patience)
		for len(expired) < passing || len(issued) < passing+fresh {
			select {
			case event := <-events.ResultChan():
				key, ok := event.Object.(*v1alpha1.ApiKey)
				if !ok || event.Type == watch.Deleted {
					continue
				}
				if _, known := issued[key.Name]; !known && key.Status.IssuedAt != nil {
					issued[key.Name] = time.Now()
				}
				if _, known := expired[key.Name]; !known && reason(key) == v1alpha1.ReasonExpired {
					expired[key.Name] = time.Since(key.Status.ExpiresAt.Time)
				}
			case <-deadline:
				Fail(fmt.Sprintf("%d issued, %d expired", len(issued), len(expired)))
			}
		}
		var slowest, latest time.Duration
		for i := range fresh {
			slowest = max(slowest, issued[fmt.Sprintf("fresh-%d", i)].Sub(created[i]))
		}
		for _, late := range expired {
			latest = max(latest, late)
		}
		cost := spent(o.Network, before, flood)
		AddReportEntry("others meanwhile", fmt.Sprintf("slowest of %d issues: %s; latest of %d expiries over %s: %s; the flood cost %v; %d passes in all",
			fresh, slowest.Round(time.Millisecond), passing, spread, latest.Round(time.Millisecond), cost, passes()-looked))
		Expect(cost).NotTo(HaveKey(status))
		Expect(cost).NotTo(HaveKey(create1))
		Expect(cost[dryRun]).To(BeNumerically("<", 20))
	})
})

// quota limits the number of Secrets in a namespace to n, which it must have. It returns when the quota is in force.
func quota(ns string, n int64) *corev1.ResourceQuota {
	GinkgoHelper()
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "secrets"}}
	quota.Spec.Hard = corev1.ResourceList{"count/secrets": *resource.NewQuantity(n, resource.DecimalSI)}
	create(quota)
	Eventually(func() error {
		return admin.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "one-more"}}, client.DryRunAll)
	}).Should(MatchError(ContainSubstring("used: count/secrets=%d,", n)))
	return quota
}

// allow changes a quota. It patches, because controllers update the quota's status all the time.
func allow(quota *corev1.ResourceQuota, n int64) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"spec":{"hard":{"count/secrets":"%d"}}}`, n)
	Expect(admin.Patch(ctx, quota, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

func secretsCreated() []admissionv1.RuleWithOperations {
	return []admissionv1.RuleWithOperations{{
		Operations: []admissionv1.OperationType{admissionv1.Create},
		Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
	}}
}

// refuseSecrets makes the API server refuse Secrets with a name in a namespace until the end of the spec. It returns when that is in force.
func refuseSecrets(ns, name string) {
	GinkgoHelper()
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: ns}}
	policy.Spec.FailurePolicy = ptr.To(admissionv1.Fail)
	policy.Spec.MatchConstraints = &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: ns}},
	}
	for _, each := range secretsCreated() {
		policy.Spec.MatchConstraints.ResourceRules = append(policy.Spec.MatchConstraints.ResourceRules, admissionv1.NamedRuleWithOperations{RuleWithOperations: each})
	}
	policy.Spec.Validations = []admissionv1.Validation{{
		Expression: fmt.Sprintf("object.metadata.name != %q", name), Message: "refused by the test",
	}}
	rule(policy)
	rule(&admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: ns, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	})
	Eventually(func() error {
		return admin.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}, client.DryRunAll)
	}).Should(MatchError(ContainSubstring("refused by the test")))
}

// delivers reconciles a key until it is issued.
func delivers(c *harness.Controllers, key *v1alpha1.ApiKey) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		_, err := c.Pass(ctx, key)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonIssued))
	}).Should(Succeed())
}

// digests counts the keys of a namespace that have a digest.
func digests(ns string) int {
	GinkgoHelper()
	keys := &v1alpha1.ApiKeyList{}
	Expect(admin.List(ctx, keys, client.InNamespace(ns))).To(Succeed())
	n := 0
	for i := range keys.Items {
		if keys.Items[i].Status.Hash != "" {
			n++
		}
	}
	return n
}
