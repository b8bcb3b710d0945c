package integration

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

var tenantRoles = []string{"org.permission.*"}

var _ = Describe("Policy", Label("releases"), func() {
	becomes := func(key *v1alpha1.ApiKey, want v1alpha1.Reason) {
		GinkgoHelper()
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(want))
	}

	DescribeTable("refuses what a tenant may not have, and says what to change",
		func(cure string, ask build.Option) {
			rule(build.ApiRole("org.permission.customer.read"))
			rule(build.ApiRole("org.permission.helper", "org.permission.loop"))
			rule(build.ApiRole("org.permission.loop", "org.permission.helper", "org.admin.setting.write"))
			rule(build.ApiRole("org.admin.setting.write"))
			rule(build.Policy("tenants", tenantRoles, build.MaxLifetime("90d"), build.AllowedCIDRs("10.0.0.0/8")))
			rule(build.Policy("admins", []string{"*"}, build.Namespaces("team", "platform")))
			c := controllers(options())
			key := build.ApiKey(governed(), "asking", build.CIDRs("10.1.0.0/16"), ask)
			create(key)
			settle(c, key)
			if cure == "" {
				expectIssued(key)
				return
			}
			Expect(reason(key)).To(Equal(v1alpha1.ReasonNotAllowed), key.Condition(v1alpha1.ConditionReady).Message)
			for _, told := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionStalled} {
				Expect(condition(key, told).Reason).To(BeEquivalentTo(v1alpha1.ReasonNotAllowed))
				Expect(condition(key, told).Message).To(And(ContainSubstring(`policy "tenants" refuses `+cure), ContainSubstring("create one that a policy allows")))
			}
			Expect(key.Status.Hash).To(BeEmpty())
			Expect(key.Status.SecretName).To(BeEmpty())
			Expect(exists(secretOf(key))).To(BeFalse())
			before := key.ResourceVersion
			_, err := c.Pass(ctx, key)
			Expect(err).NotTo(HaveOccurred())
			Expect(reread(key).ResourceVersion).To(Equal(before), "a pending key causes no writes")
		},
		Entry("but not what it may", "", build.After("90d")),
		Entry("an admin role", "the role org.admin.setting.write (it allows org.permission.*)", build.Roles("org.admin.setting.write")),
		Entry("an admin role that another role includes", "the role org.admin.setting.write (included by org.permission.helper)", build.Roles("org.permission.helper")),
		Entry("a life too long", "expiry.after: 91d (its maxLifetime is 90d)", build.After("91d")),
		Entry("never", "expiry.never (its maxLifetime is 90d)", build.Never()),
		Entry("a moment too far", "expiry.at: 2999-01-01T00:00:00Z (its maxLifetime is 90d)", build.At("2999-01-01T00:00:00Z")),
		Entry("every network", "the network 0.0.0.0/0 (each must lie within one of 10.0.0.0/8)", build.CIDRs("0.0.0.0/0")),
		Entry("every network of IPv6", "the network ::/0", build.CIDRs("10.0.0.0/8", "::/0")),
		Entry("no networks", "a key without cidrs (each must lie within one of 10.0.0.0/8)", build.CIDRs()),
		Entry("every network in halves", "the network 0.0.0.0/1, 128.0.0.0/1", build.CIDRs("0.0.0.0/1", "128.0.0.0/1")),
	)

	It("requires attributes, and their values, of new keys", func() {
		policy := build.Policy("owners", tenantRoles, build.RequiredAttributes("owner", "plan"), build.AllowedAttribute("owner", "team-a", "team-b"))
		rule(policy)
		c := controllers(options())
		ns := governed()
		expectRefusal := func(name, refusal string, asks ...build.Option) {
			GinkgoHelper()
			key := build.ApiKey(ns, name, asks...)
			create(key)
			settle(c, key)
			Expect(reason(key)).To(Equal(v1alpha1.ReasonNotAllowed))
			Expect(condition(key, v1alpha1.ConditionReady).Message).To(ContainSubstring(`policy "owners" refuses ` + refusal))
			Expect(exists(secretOf(key))).To(BeFalse())
		}
		expectRefusal("none", "a key without the attributes owner, plan (it requires owner, plan)")
		expectRefusal("half", "a key without the attribute plan (it requires owner, plan)", build.Attribute("owner", "team-a"))
		expectRefusal("foreign", `the attribute owner: "team-c" (it allows "team-a", "team-b")`,
			build.Attribute("owner", "team-c"), build.Attribute("plan", "gold"))
		owned := build.ApiKey(ns, "owned", build.Attribute("owner", "team-b"), build.Attribute("plan", "gold"), build.Attribute("other", "x"))
		create(owned)
		settle(c, owned)
		expectIssued(owned)

		By("a policy that is tightened: issued keys keep working and show it")
		reread(policy).Spec.RequiredAttributes = append(policy.Spec.RequiredAttributes, "cost-center")
		Expect(admin.Update(ctx, policy)).To(Succeed())
		_, err := c.Pass(ctx, owned)
		Expect(err).NotTo(HaveOccurred())
		expectIssued(owned)
		Expect(condition(owned, v1alpha1.ConditionOutOfPolicy).Message).To(ContainSubstring("a key without the attribute cost-center"))
	})

	It("is applied again when a policy is created, changed or deleted, and when a namespace is labelled", func() {
		running(options())
		ns := governed()
		issued := build.ApiKey(ns, "issued")
		create(issued)
		becomes(issued, v1alpha1.ReasonIssued)
		hash := issued.Status.Hash
		outOfPolicy := func() bool { return condition(issued, v1alpha1.ConditionOutOfPolicy) != nil }

		By("a policy for other namespaces: issued keys keep working and show it, new ones stay pending")
		policy := build.Policy("changing", tenantRoles, build.Namespaces("team", "a"))
		rule(policy)
		Eventually(outOfPolicy).Should(BeTrue())
		Expect(condition(issued, v1alpha1.ConditionOutOfPolicy).Message).To(And(
			ContainSubstring("keeps working"), ContainSubstring(fmt.Sprintf("none selects namespace %q", ns))))
		waiting := build.ApiKey(ns, "waiting")
		create(waiting)
		becomes(waiting, v1alpha1.ReasonNotAllowed)
		Expect(reason(reread(issued))).To(Equal(v1alpha1.ReasonIssued))

		By("the namespace gets the label")
		relabel(ns, "team", "a")
		becomes(waiting, v1alpha1.ReasonIssued)
		Eventually(outOfPolicy).Should(BeFalse())
		expectIssued(waiting)

		By("the policy changes")
		reread(policy).Spec.MaxLifetime = "1d"
		Expect(admin.Update(ctx, policy)).To(Succeed())
		Eventually(outOfPolicy).Should(BeTrue())
		reread(policy).Spec.MaxLifetime = ""
		Expect(admin.Update(ctx, policy)).To(Succeed())
		Eventually(outOfPolicy).Should(BeFalse())

		By("a role includes one that is not allowed")
		rule(build.ApiRole("org.permission.customer.read", "org.admin.setting.write"))
		Eventually(outOfPolicy).Should(BeTrue())

		By("the policy is deleted")
		Expect(admin.Delete(ctx, policy)).To(Succeed())
		Eventually(outOfPolicy).Should(BeFalse())
		expectIssued(issued)
		Expect(issued.Status.Hash).To(Equal(hash))
	})

	It("denies every key until one exists, if policies are required", func() {
		o := options()
		o.Rules.RequirePolicy = true
		c := controllers(o)
		key := build.ApiKey(governed(), "strict")
		create(key)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonNotAllowed))
		Expect(condition(key, v1alpha1.ConditionReady).Message).To(ContainSubstring("--require-policy"))
		rule(build.Policy("any", []string{"*"}))
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		expectIssued(key)
	})

	It("compares a fixed expiry time with the time that is left, and issues the key once that is short enough", func() {
		clock := fakeClock()
		o := options()
		o.Clock = clock
		c := controllers(o)
		rule(build.Policy("short", []string{"*"}, build.MaxLifetime("1h")))
		key := build.ApiKey(governed(), "patient", build.At(clock.Now().Add(65*time.Minute).Format(time.RFC3339)))
		create(key)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonNotAllowed))
		clock.Step(time.Second)
		before := key.ResourceVersion
		result, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.RequeueAfter).To(Equal(5*time.Minute - time.Second))
		Expect(reread(key).ResourceVersion).To(Equal(before), "the message does not count down")
		clock.Step(result.RequeueAfter)
		_, err = c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		expectIssued(key)
		clock.Step(time.Minute)
		_, err = c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(condition(key, v1alpha1.ConditionOutOfPolicy)).To(BeNil())
	})

	DescribeTable("issues nothing while it can't be read", SpecPriority(1),
		func(resource string) {
			var healed atomic.Bool
			o := options()
			o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
				if r.Resource == resource && !healed.Load() {
					return harness.LostRequest
				}
				return harness.None
			}}
			rule(build.Policy("nobody", []string{"nothing"}))
			m, err := harness.StartManager(o, workers, "")
			Expect(err).NotTo(HaveOccurred())
			key := build.ApiKey(governed(), "unjudged")
			past := build.ApiKey(key.Namespace, "past", build.At("2020-01-01T00:00:00Z"))
			create(key)
			create(past)
			becomes(key, v1alpha1.ReasonIssuing)
			Expect(condition(key, v1alpha1.ConditionReady).Message).To(ContainSubstring("can't read"))
			becomes(past, v1alpha1.ReasonExpired)
			Expect(reread(key).Status.Hash).To(BeEmpty())
			Expect(key.Status.ExpiresAt).To(BeNil())
			healed.Store(true)
			becomes(key, v1alpha1.ReasonNotAllowed)
			Expect(m.Stop()).To(Succeed())
			for _, r := range o.Network.Requests() {
				Expect(r.Method == http.MethodPost && r.Resource == "secrets").To(BeFalse(), "no Secret was created")
			}
		},
		Entry("without roles", "apiroles"),
		Entry("without policies", "apikeypolicies"),
		Entry("without namespaces", "namespaces"),
	)

	// tightened returns a network that creates a policy right before the nth write.
	tightened := func(n int, policy client.Object) *harness.Network {
		writes := 0
		return &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if r.Writes() {
				if writes++; writes == n {
					Expect(admin.Create(ctx, policy)).To(Succeed())
				}
			}
			return harness.None
		}}
	}
	for n, when := range map[int]string{1: "committed", 2: "delivered"} {
		It("that appears right before a token is "+when+" leaves neither digest nor Secret, even after a crash", func() {
			for crashed := range 4 { // 0: no crash
				ns := governed()
				policy := build.Policy(fmt.Sprintf("sudden-%d-%d", n, crashed), []string{"nothing"})
				o := options()
				o.Network = tightened(n, policy)
				key := build.ApiKey(ns, "taken-back")
				create(key)
				_, err := controllers(o).Pass(ctx, key)
				Expect(err).NotTo(HaveOccurred())
				Expect(reread(key).Status.IssuedAt).To(BeNil(), "not confirmed")
				Expect(key.Status.Hash).NotTo(BeEmpty())

				if crashed > 0 {
					dying := options()
					dying.Network, _ = crash(crashed, harness.LostAnswer)
					_, _ = controllers(dying).Pass(ctx, key)
				}
				c := controllers(options())
				for range 3 {
					_, err := c.Pass(ctx, key)
					Expect(err).NotTo(HaveOccurred())
				}
				Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonNotAllowed))
				Expect(key.Status.Hash).To(BeEmpty())
				Expect(key.Status.SecretName).To(BeEmpty())
				Expect(key.Status.ExpiresAt).NotTo(BeNil(), "the first commit sets it")
				deadline := key.Status.ExpiresAt.Time
				Expect(exists(secretOf(key))).To(BeFalse())

				Expect(admin.Delete(ctx, policy)).To(Succeed())
				settle(c, key)
				for range 2 {
					_, err := c.Pass(ctx, key)
					Expect(err).NotTo(HaveOccurred())
				}
				expectIssued(key)
				Expect(key.Status.ExpiresAt.Time).To(BeTemporally("==", deadline))
			}
		})
	}

	It("deletes the digest without touching a foreign Secret", func() {
		c := controllers(options())
		key := build.ApiKey(governed(), "blocked")
		create(key)
		foreign := secretOf(key)
		create(foreign)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonSecretConflict))
		rule(build.Policy("nobody", []string{"nothing"}))
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonNotAllowed))
		Expect(key.Status.Hash).To(BeEmpty())
		Expect(exists(foreign)).To(BeTrue())
	})

	// Two reconciles of one key: the first one sees that the token Secret must be deleted, because an earlier deletion failed. Meanwhile the
	// other one issues the key. The status is then as the first one would write it, so none of its writes fails and tells it that it is late.
	for when, late := range map[string]func(r harness.Request) bool{
		"it has an old view":         nil,
		"it reads the Secret":        func(r harness.Request) bool { return r.Method == http.MethodGet && r.Resource == "secrets" },
		"it has read the Secret":     func(r harness.Request) bool { return r.Method == http.MethodGet && r.Resource == "apikeys" },
		"it is about to delete that": func(r harness.Request) bool { return r.Method == http.MethodDelete && r.Resource == "secrets" },
	} {
		It("deletes no Secret of a key that another pass issued when "+when, func() {
			policy := build.Policy("taking-back", []string{"nothing"})
			DeferCleanup(func() { Expect(client.IgnoreNotFound(admin.Delete(ctx, policy))).To(Succeed()) })
			o := options()
			o.Network = tightened(2, policy)
			key := build.ApiKey(governed(), "overtaken")
			create(key)
			_, err := controllers(o).Pass(ctx, key)
			Expect(err).NotTo(HaveOccurred())
			o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
				if r.Method == http.MethodDelete {
					return harness.LostRequest
				}
				return harness.None
			}}
			_, err = controllers(o).Pass(ctx, key)
			Expect(err).To(MatchError(ContainSubstring("delete Secret")))
			view := reread(key).DeepCopy()
			Expect(reason(view)).To(Equal(v1alpha1.ReasonNotAllowed))
			Expect(view.Status.Hash).To(BeEmpty())
			Expect(exists(secretOf(key))).To(BeTrue(), "the Secret that must be deleted still exists")

			overtake := func() {
				Expect(admin.Delete(ctx, policy)).To(Succeed())
				settle(controllers(options()), key)
				expectIssued(key)
				policy = build.Policy("taking-back", []string{"nothing"})
				Expect(admin.Create(ctx, policy)).To(Succeed())
			}
			o = options()
			overtaken := false
			o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
				if late != nil && late(r) && !overtaken {
					overtaken = true
					overtake()
				}
				return harness.None
			}}
			stale := controllers(o)
			stale.Issuing.Client = frozen{Client: stale.Issuing.Client, view: view}
			if late == nil {
				overtaken = true
				overtake()
			}
			_, err = stale.Pass(ctx, key)
			Expect(err).NotTo(HaveOccurred(), "it is not an error that another pass was faster")
			Expect(overtaken).To(BeTrue())
			expectIssued(key)
		})
	}

	// FLOOD is the number of keys in the floods of these two.
	It("causes, when it changes, reconciles only of the keys that it affects", func() {
		n := number("FLOOD", 300)
		network := &harness.Network{}
		o := options()
		o.Network = network
		gate := build.Policy("gate", []string{"nothing"})
		rule(gate)
		running(o)
		ns := governed()
		createFlood(ns, n)
		Eventually(func() int { return counted(ns, v1alpha1.ReasonNotAllowed) }, 3*time.Minute, time.Second).Should(Equal(n))
		other := governed()
		one := build.ApiKey(other, "one", build.Roles("test.one"))
		create(one)
		becomes(one, v1alpha1.ReasonNotAllowed)

		before, requests := passes(), len(network.Requests())
		// First changes that affect none of them, then one that lets a single key be issued.
		elsewhere := build.Policy("elsewhere", []string{"*"}, build.Namespaces("team", "elsewhere"))
		rule(elsewhere)
		reread(elsewhere).Spec.MaxLifetime = "1d"
		Expect(admin.Update(ctx, elsewhere)).To(Succeed())
		relabel(ns, "team", "b")
		rule(build.Policy("one", []string{"test.one"}, build.Namespaces("kubernetes.io/metadata.name", v1alpha1.LabelValue(other))))
		becomes(one, v1alpha1.ReasonIssued)
		spent, sent := passes()-before, len(network.Requests())-requests
		AddReportEntry("passes and requests for four changes", fmt.Sprintf("%d passes, %d requests, %d keys waiting", spent, sent, n))
		Expect(spent).To(BeNumerically("<", 50), "none of the pending keys is reconciled")
		Expect(sent).To(BeNumerically("<", 100))

		// If a change affects all keys, each costs one reconcile with three writes, and one more if a cache was late, however many changes there
		// were.
		reread(elsewhere).Spec.NamespaceSelector = nil
		elsewhere.Spec.MaxLifetime = ""
		Expect(admin.Update(ctx, elsewhere)).To(Succeed())
		Eventually(func() int { return counted(ns, v1alpha1.ReasonIssued) }, 3*time.Minute, time.Second).Should(Equal(n))
		AddReportEntry("passes to issue all", passes()-before-spent)
		Expect(passes() - before - spent).To(BeNumerically("<", 3*n))
	})

	It("lets a flood of keys that may not be issued hold up nobody else", func() {
		n := number("FLOOD", 800)
		rule(build.Policy("good", []string{"test.good"}))
		flood, calm := governed(), governed()
		createFlood(flood, n) // before the manager starts, so that all keys are queued at once
		running(options())
		var worst time.Duration
		judged := n
		for i := range 10 {
			key := build.ApiKey(calm, fmt.Sprintf("good-%d", i), build.Roles("test.good"))
			started := time.Now()
			create(key)
			becomes(key, v1alpha1.ReasonIssued)
			AddReportEntry("good key issued after", time.Since(started).String())
			worst = max(worst, time.Since(started))
			judged = min(judged, counted(flood, v1alpha1.ReasonNotAllowed))
		}
		AddReportEntry("good keys in a flood", fmt.Sprintf("slowest of 10: %s; when the first was issued, %d of %d had been refused", worst, judged, n))
		Expect(judged).To(BeNumerically("<", n), "the flood was still being reconciled")
	})
})

var _ = Describe("The schema of an ApiKeyPolicy", Label("releases"), func() {
	requirement := func(key, operator string, values ...v1alpha1.LabelValue) build.PolicyOption {
		return func(spec *v1alpha1.ApiKeyPolicySpec) {
			spec.NamespaceSelector = &v1alpha1.NamespaceSelector{MatchExpressions: []v1alpha1.NamespaceSelectorRequirement{
				{Key: key, Operator: v1alpha1.NamespaceSelectorOperator(operator), Values: values},
			}}
		}
	}
	roles := func(names ...string) build.PolicyOption {
		return func(spec *v1alpha1.ApiKeyPolicySpec) { spec.Roles = names }
	}
	DescribeTable("accepts",
		func(option build.PolicyOption) {
			Expect(admin.Create(ctx, build.Policy("accepted", []string{"*"}, option), client.DryRunAll)).To(Succeed())
		},
		Entry("roles and prefixes", roles("org.permission.*", "org.admin", "*")),
		Entry("all networks", build.AllowedCIDRs("0.0.0.0/0", "::/0")),
		Entry("the longest life", build.MaxLifetime("3650d")),
		Entry("a required expiry", build.RequireExpiry()),
		Entry("required attributes", build.RequiredAttributes("owner", "cost-center")),
		Entry("attributes with values", func(spec *v1alpha1.ApiKeyPolicySpec) {
			build.AllowedAttribute("owner", "team-a", "Team B")(spec)
			build.AllowedAttribute("plan", "gold")(spec)
		}),
		Entry("as many attributes as the schema allows", func(spec *v1alpha1.ApiKeyPolicySpec) {
			for i := range 16 {
				values := make([]v1alpha1.AttributeValue, 64)
				for j := range values {
					values[j] = v1alpha1.AttributeValue(fmt.Sprintf("%0256d", j))
				}
				name := fmt.Sprintf("%s-%02d", strings.Repeat("a", 60), i)
				build.AllowedAttribute(name, values...)(spec)
				spec.RequiredAttributes = append(spec.RequiredAttributes, name)
			}
		}),
		Entry("an empty selector", func(spec *v1alpha1.ApiKeyPolicySpec) { spec.NamespaceSelector = &v1alpha1.NamespaceSelector{} }),
		Entry("a label", build.Namespaces("kubernetes.io/metadata.name", "ns")),
		Entry("an empty label", build.Namespaces("example.com/a", "")),
		Entry("In", requirement("team", "In", "a", "b")),
		Entry("Exists", requirement("team", "Exists")),
	)
	DescribeTable("refuses, naming the field and what would be right",
		func(option build.PolicyOption, field, cure string) {
			err := admin.Create(ctx, build.Policy("refused", []string{"*"}, option), client.DryRunAll)
			Expect(err).To(MatchError(And(ContainSubstring(field), ContainSubstring(cure))))
		},
		Entry("no roles", roles(), "spec", "Required value"),
		Entry("a star in the middle", roles("org.*.read"), "spec.roles[0]", `"org.*.read" must be a role, such as`),
		Entry("a star without a dot", roles("org*"), "spec.roles[0]", "a prefix that ends in .*"),
		Entry("a dot and a star", roles(".*"), "spec.roles[0]", `".*" must be a role`),
		Entry("two stars", roles("*.*"), "spec.roles[0]", "must be a role"),
		Entry("upper case", roles("Admin"), "spec.roles[0]", "must be a role"),
		Entry("a role twice", roles("a", "a"), "spec.roles[1]", "Duplicate value"),
		Entry("a life of zero", build.MaxLifetime("0s"), "spec.maxLifetime", "more than zero"),
		Entry("a life in weeks", build.MaxLifetime("2w"), "spec.maxLifetime", "such as 90d"),
		Entry("host bits", build.AllowedCIDRs("10.0.0.1/8"), "spec.allowedCIDRs[0]", "10.0.0.1/8 has host bits; the network is 10.0.0.0/8"),
		Entry("an address", build.AllowedCIDRs("10.0.0.1"), "spec.allowedCIDRs[0]", `"10.0.0.1" must be an IPv4 or IPv6 network`),
		Entry("IPv4 mapped into IPv6", build.AllowedCIDRs("::ffff:10.0.0.0/104"), "spec.allowedCIDRs[0]", "IPv4-mapped IPv6 addresses are not allowed"),
		Entry("a required attribute in upper case", build.RequiredAttributes("Owner"), "spec.requiredAttributes[0]", `"Owner" is not a name of an attribute`),
		Entry("a required attribute twice", build.RequiredAttributes("owner", "owner"), "spec.requiredAttributes[1]", "Duplicate value"),
		Entry("the name of an attribute", build.AllowedAttribute("cost_center", "1"), "spec.attributes",
			`"cost_center" is not a name of an attribute: must be a lower-case letter`),
		Entry("an attribute without values", build.AllowedAttribute("owner", []v1alpha1.AttributeValue{}...), "spec.attributes", "owner"),
		Entry("an attribute's value with a line break", build.AllowedAttribute("owner", "a\nb"), "spec.attributes[owner][0]", "must be printable ASCII"),
		Entry("an attribute's value that stands for none", build.AllowedAttribute("owner", "-"), "spec.attributes[owner][0]", "must not be -"),
		Entry("an attribute's value twice", build.AllowedAttribute("owner", "a", "a"), "spec.attributes", "Duplicate value"),
		Entry("an operator that does not exist", requirement("team", "Is", "a"), "operator", "Unsupported value"),
		Entry("In without values", requirement("team", "In"), "spec.namespaceSelector.matchExpressions[0]", "the operator In needs values"),
		Entry("Exists with values", requirement("team", "Exists", "a"), "matchExpressions[0]", "the operator Exists takes no values"),
		Entry("a label's name", requirement("a b", "Exists"), "key", `"a b" must be a label name`),
		Entry("a label's value", requirement("team", "In", "a b"), "values[0]", `"a b" must be a label value`),
		Entry("the name of a label to match", build.Namespaces("a b", "c"), "spec.namespaceSelector.matchLabels", "every name must be a label name"),
		Entry("the value of a label to match", build.Namespaces("team", v1alpha1.LabelValue(strings.Repeat("a", 64))), "matchLabels", "63"),
	)
})

// createFlood creates n keys with the default role concurrently.
func createFlood(ns string, n int) {
	GinkgoHelper()
	var group sync.WaitGroup
	failures := make(chan error, n)
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < n; i += 8 {
				if err := admin.Create(ctx, build.ApiKey(ns, fmt.Sprintf("refused-%d", i))); err != nil {
					failures <- err
				}
			}
		})
	}
	group.Wait()
	Expect(failures).To(BeEmpty())
}

// counted counts the keys of a namespace whose Ready condition has a reason.
func counted(ns string, want v1alpha1.Reason) int {
	GinkgoHelper()
	keys := &v1alpha1.ApiKeyList{}
	Expect(admin.List(ctx, keys, client.InNamespace(ns))).To(Succeed())
	n := 0
	for i := range keys.Items {
		if ready := meta.FindStatusCondition(keys.Items[i].Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Reason == string(want) {
			n++
		}
	}
	return n
}

// passes counts the reconciles of the issuing controllers in this process.
func passes() int {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	n := 0.0
	for _, family := range families {
		if family.GetName() != "controller_runtime_reconcile_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "controller" && label.GetValue() == "issuing" {
					n += metric.GetCounter().GetValue()
				}
			}
		}
	}
	return int(n)
}
