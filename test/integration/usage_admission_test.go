package integration

import (
	"errors"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

const usageRefused = "an ApiKeyUsage may be written only by the verifier that it is named after"

// rbacRule is a permission on ApiKeyUsages.
func rbacRule(verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{"apikey-operator.io"}, Resources: []string{"apikeyusages"}, Verbs: verbs}
}

var _ = Describe("A report of use", Label("releases"), func() {
	change := func(c client.Client, report *v1alpha1.ApiKeyUsage) error {
		return c.Patch(ctx, report.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"report":"changed"}`)))
	}

	It("is written by the pod that it is named after, and by nobody else", func() {
		one, two := verifierPod("one"), verifierPod("two")
		asOne, asTwo := clientOf(asPod(one)), clientOf(asPod(two))
		own := usageReport(controlplane.Namespace, one.Name, "own")
		Expect(asTwo.Create(ctx, own.DeepCopy())).To(MatchError(ContainSubstring(usageRefused)))
		Expect(asOne.Create(ctx, own)).To(Succeed())
		Expect(change(asOne, own)).To(Succeed())
		Expect(change(asTwo, own)).To(MatchError(ContainSubstring(usageRefused)))

		By("a pod can't use the name of its service account")
		account := usageReport(controlplane.Namespace, controlplane.VerifierAccount, "account")
		Expect(asOne.Create(ctx, account.DeepCopy())).To(MatchError(ContainSubstring(usageRefused)))

		By("a token that is bound to no pod uses the name of the account alone")
		config, err := plane.As(ctx, controlplane.Namespace, controlplane.VerifierAccount)
		Expect(err).NotTo(HaveOccurred())
		unbound := clientOf(config)
		// A verifier of another spec may have written the report of this account.
		remove := func() error { return client.IgnoreNotFound(admin.Delete(ctx, account.DeepCopy())) }
		DeferCleanup(func() { Expect(remove()).To(Succeed()) })
		Eventually(func() error { return errors.Join(remove(), unbound.Create(ctx, account.DeepCopy())) }).Should(Succeed())
		Expect(change(unbound, own)).To(MatchError(ContainSubstring(usageRefused)))

		By("an administrator can only delete it")
		Expect(change(admin, own)).To(MatchError(ContainSubstring(usageRefused)))
		Expect(admin.Create(ctx, usageReport(controlplane.Namespace, "admins", "x"))).To(MatchError(ContainSubstring(usageRefused)))
		Expect(admin.Delete(ctx, own)).To(Succeed())
	})

	It("is not written in another namespace, even by a verifier that may", func() {
		ns := namespace()
		pod := verifierPod("strays")
		verifier := clientOf(asPod(pod))
		stray := usageReport(ns, pod.Name, "x")
		Expect(verifier.Create(ctx, stray.DeepCopy())).To(MatchError(ContainSubstring(`cannot create resource "apikeyusages"`)))
		binding := &rbacv1.RoleBinding{}
		binding.Namespace, binding.Name = ns, "strays"
		binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: clusterRole(ns+"-strays", rbacRule("create"))}
		binding.Subjects = []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: controlplane.Namespace, Name: controlplane.VerifierAccount}}
		create(binding)
		Eventually(func() error { return verifier.Create(ctx, stray.DeepCopy()) }).Should(MatchError(ContainSubstring(usageRefused)))
	})

	It("has at most 500 uses, each with a digest and an age", func() {
		pod := verifierPod("limits")
		verifier := clientOf(asPod(pod))
		use := ageOf(&v1alpha1.ApiKey{}, 0)
		use.UID, use.Digest = "uid", token.Mint("ak").Digest().String()
		report := usageReport(controlplane.Namespace, pod.Name, "x")
		for range 501 {
			report.Uses = append(report.Uses, use)
		}
		Expect(verifier.Create(ctx, report.DeepCopy())).To(MatchError(ContainSubstring("must have at most 500 items")))
		report.Uses = report.Uses[:500]
		Expect(verifier.Create(ctx, report)).To(Succeed())
		for text, change := range map[string]string{
			"should match":                 `{"uses":[{"uid":"a","digest":"` + use.Digest[:70] + `g","age":1}]}`,
			"greater than or equal to 0":   `{"uses":[{"uid":"a","digest":"` + use.Digest + `","age":-1}]}`,
			"uses[0].age: Required value":  `{"uses":[{"uid":"a","digest":"` + use.Digest + `"}]}`,
			"report: Required value":       `{"report":null}`,
			"uses[0].uid: Required value":  `{"uses":[{"digest":"` + use.Digest + `","age":1}]}`,
			"less than or equal to 429496": `{"uses":[{"uid":"a","digest":"` + use.Digest + `","age":4294967296}]}`,
		} {
			Expect(verifier.Patch(ctx, report.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(change)))).
				To(MatchError(ContainSubstring(text)), change)
		}
	})

	It("is all that a verifier can write: with its token, nobody changes a key, a status or a Secret", func() {
		key := build.ApiKey(namespace(), "guarded")
		create(key)
		settle(controllers(options()), key)
		before := reread(key.DeepCopy())
		thief := clientOf(asPod(verifierPod("thief")))
		Expect(writeStatus(thief, key, token.Mint("ak").Digest())).To(MatchError(ContainSubstring("forbidden")))
		Expect(thief.Status().Patch(ctx, key.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"lastUsedAt":"2026-01-01T00:00:00Z"}}`)))).
			To(MatchError(ContainSubstring("forbidden")))
		Expect(thief.Patch(ctx, key.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":true}}`)))).
			To(MatchError(ContainSubstring("forbidden")))
		Expect(thief.Delete(ctx, key.DeepCopy())).To(MatchError(ContainSubstring("forbidden")))
		Expect(thief.Get(ctx, client.ObjectKeyFromObject(secretOf(key)), secretOf(key))).To(MatchError(ContainSubstring("forbidden")))
		Expect(reread(key)).To(Equal(before))
	})
})
