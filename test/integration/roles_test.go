package integration

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

var _ = Describe("The role catalogue", Label("releases"), func() {
	It("keeps a key with an unknown role pending, and issues it as soon as the role exists", func() {
		running(options())
		ns := governed()
		rule(build.ApiRole("test.known"))
		key := build.ApiKey(ns, "early", build.Roles("test.known", "test.late"))
		create(key)
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonUnknownRole))
		stalled := condition(key, v1alpha1.ConditionStalled)
		Expect(stalled).NotTo(BeNil())
		Expect(stalled.Reason).To(BeEquivalentTo(v1alpha1.ReasonUnknownRole))
		Expect(stalled.Message).To(And(ContainSubstring("no ApiRole test.late;"), ContainSubstring("kubectl get apiroles")))
		Expect(key.Status.Hash).To(BeEmpty())
		Expect(key.Status.ExpiresAt).To(BeNil(), "its lifetime has not begun")
		Expect(exists(secretOf(key))).To(BeFalse())

		rule(build.ApiRole("test.late"))
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonIssued))
		expectIssued(key)
		Expect(condition(key, v1alpha1.ConditionStalled)).To(BeNil())
	})

	It("restricts nothing once it is empty again, and an issued key whose role was deleted keeps working and shows it", func() {
		running(options())
		ns := governed()
		first, second := build.ApiRole("test.first"), build.ApiRole("test.second")
		rule(first)
		rule(second)
		issued, waiting := build.ApiKey(ns, "issued", build.Roles("test.first")), build.ApiKey(ns, "waiting", build.Roles("test.third"))
		create(issued)
		create(waiting)
		Eventually(func() v1alpha1.Reason { return reason(reread(issued)) }).Should(Equal(v1alpha1.ReasonIssued))
		Eventually(func() v1alpha1.Reason { return reason(reread(waiting)) }).Should(Equal(v1alpha1.ReasonUnknownRole))

		Expect(admin.Delete(ctx, first)).To(Succeed())
		Eventually(func() *metav1.Condition { return condition(issued, v1alpha1.ConditionOutOfPolicy) }).ShouldNot(BeNil())
		Expect(condition(issued, v1alpha1.ConditionOutOfPolicy).Message).To(ContainSubstring("no ApiRole test.first"))
		expectIssued(issued)

		Expect(admin.Delete(ctx, second)).To(Succeed())
		Eventually(func() *metav1.Condition { return condition(issued, v1alpha1.ConditionOutOfPolicy) }).Should(BeNil())
		Eventually(func() v1alpha1.Reason { return reason(reread(waiting)) }).Should(Equal(v1alpha1.ReasonIssued))
	})

	It("denies every key until it has the key's roles, if the catalogue is required", func() {
		o := options()
		o.Rules.RequireCatalogue = true
		c := controllers(o)
		key := build.ApiKey(governed(), "strict", build.Roles("test.strict"))
		create(key)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonUnknownRole))
		Expect(condition(key, v1alpha1.ConditionReady).Message).To(ContainSubstring("--require-catalogue"))
		rule(build.ApiRole("test.strict"))
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		expectIssued(key)
	})

	It("counts the keys that have a role, in their spec or through what their roles include", func() {
		running(options())
		ns := governed()
		rule(build.ApiRole("test.write", "test.create", "test.update"))
		rule(build.ApiRole("test.create", "test.write")) // a cycle
		rule(build.ApiRole("test.update"))
		rule(build.ApiRole("test.idle"))
		count := func(role string) func() *int32 {
			return func() *int32 { return reread(build.ApiRole(role)).Status.Keys }
		}
		writer, updater := build.ApiKey(ns, "writer", build.Roles("test.write")), build.ApiKey(ns, "updater", build.Roles("test.update"))
		create(writer)
		create(updater)
		create(build.ApiKey(ns, "dead", build.Roles("test.update"), build.At("2020-01-01T00:00:00Z")))
		Eventually(count("test.write")).Should(HaveValue(BeEquivalentTo(1)))
		Eventually(count("test.create")).Should(HaveValue(BeEquivalentTo(1)))
		Eventually(count("test.update")).Should(HaveValue(BeEquivalentTo(2)), "the expired key does not count")
		Eventually(count("test.idle")).Should(HaveValue(BeEquivalentTo(0)))
		Expect(admin.Delete(ctx, writer)).To(Succeed())
		Eventually(count("test.update")).Should(HaveValue(BeEquivalentTo(1)))
		Eventually(count("test.write")).Should(HaveValue(BeEquivalentTo(0)))

		table, err := exec.CommandContext(ctx, plane.Kubectl(), "--kubeconfig", adminKubeconfig(), "get", "apiroles").CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(table))
		Expect(string(table)).To(MatchRegexp(`(?m)^NAME +DESCRIPTION +KEYS *$`))
		Expect(string(table)).To(MatchRegexp(`(?m)^test.update +What test.update allows. +1 *$`))
	})

	It("is counted with one write per role, however many keys come and go", func() {
		ns := governed()
		rule(build.ApiRole("test.busy"))
		for _, name := range []string{"a", "b", "c"} {
			create(build.ApiKey(ns, name, build.Roles("test.busy")))
		}
		network := &harness.Network{}
		o := options()
		o.Network = network
		c := controllers(o)
		for range 3 {
			_, err := c.Counting.Reconcile(ctx, request("all"))
			Expect(err).NotTo(HaveOccurred())
		}
		writes := 0
		for _, r := range network.Requests() {
			if r.Method != http.MethodGet {
				Expect(r).To(Equal(harness.Request{Method: "PATCH", Resource: "apiroles/status", Name: "test.busy"}))
				writes++
			}
		}
		Expect(writes).To(Equal(1))
		Expect(reread(build.ApiRole("test.busy")).Status.Keys).To(HaveValue(BeEquivalentTo(3)))
	})

	It("has samples that the API server accepts", func() {
		samples := filepath.Join(plane.Root, "config", "samples")
		out, err := exec.CommandContext(ctx, plane.Kubectl(), "--kubeconfig", adminKubeconfig(), "apply", "--dry-run=server",
			"-k", filepath.Join(samples, "catalogue")).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		Expect(strings.Count(string(out), "apirole.apikey-operator.io/")).To(Equal(23))
		Expect(string(out)).To(ContainSubstring("apikeypolicy.apikey-operator.io/everywhere created"))
		out, err = exec.CommandContext(ctx, plane.Kubectl(), "--kubeconfig", adminKubeconfig(), "apply", "--dry-run=server",
			"-k", samples).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		Expect(strings.Count(string(out), "apikey.apikey-operator.io/")).To(Equal(3))
	})
})

var _ = Describe("The schema of an ApiRole", Label("releases"), func() {
	many := func(n int) []string {
		names := make([]string, n)
		for i := range names {
			names[i] = "r" + strings.Repeat("x", i)
		}
		return names
	}
	DescribeTable("refuses, naming the field and what would be right",
		func(change func(*v1alpha1.ApiRole), field, cure string) {
			role := build.ApiRole("test.refused")
			change(role)
			Expect(admin.Create(ctx, role, client.DryRunAll)).To(MatchError(And(ContainSubstring(field), ContainSubstring(cure))))
		},
		Entry("no description", func(r *v1alpha1.ApiRole) { r.Spec.Description = "" }, "spec", "Required value"),
		Entry("a long description", func(r *v1alpha1.ApiRole) { r.Spec.Description = strings.Repeat("é", 1025) }, "spec.description", "1024"),
		Entry("a wildcard", func(r *v1alpha1.ApiRole) { r.Spec.Includes = []string{"org.*"} }, "spec.includes[0]", `"org.*" must be a DNS subdomain`),
		Entry("a role twice", func(r *v1alpha1.ApiRole) { r.Spec.Includes = []string{"a", "a"} }, "spec.includes[1]", "Duplicate value"),
		Entry("257 roles", func(r *v1alpha1.ApiRole) { r.Spec.Includes = many(257) }, "spec.includes", "at most 256"),
		Entry("a name that is not valid in a key", func(r *v1alpha1.ApiRole) { r.Name = "Admin" }, "metadata.name", "lower case"),
	)

	It("accepts roles that include themselves, and names of roles that don't exist", func() {
		Expect(admin.Create(ctx, build.ApiRole("test.self", "test.self", "test.nowhere"), client.DryRunAll)).To(Succeed())
	})

	It("refuses a count below zero", func() {
		role := build.ApiRole("test.count")
		rule(role)
		role.Status.Keys = ptr.To[int32](-1)
		Expect(admin.Status().Update(ctx, role)).To(MatchError(ContainSubstring("status.keys")))
	})
})

// The operator requeues a pending key only if time can change something for it.
var _ = Describe("A key that waits for a role", Label("releases"), func() {
	It("expires at its expiry time, without a token", func() {
		clock := fakeClock()
		o := options()
		o.Clock = clock
		c := controllers(o)
		ns := governed()
		rule(build.ApiRole("test.other"))
		key := build.ApiKey(ns, "doomed", build.Roles("test.none"), build.At(clock.Now().Add(5*time.Minute).Format(time.RFC3339)))
		timeless := build.ApiKey(ns, "timeless", build.Roles("test.none"))
		create(key)
		create(timeless)
		settle(c, key)
		settle(c, timeless)
		result, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.RequeueAfter).To(Equal(5 * time.Minute))
		result, err = c.Pass(ctx, timeless)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.RequeueAfter).To(BeZero(), "nothing is due until an event")

		clock.Step(5 * time.Minute)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonExpired))
		Expect(key.Status.Hash).To(BeEmpty())
		Expect(condition(key, v1alpha1.ConditionReady).Message).To(ContainSubstring("so it has no token"))
	})
})
