package install

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// Readers apply the samples in any order and leave them in place, so that no sample may refuse another.
var _ = Describe("All samples together, on one cluster", func() {
	DescribeTable("are accepted, and all their keys are issued",
		func(flags ...string) {
			c := newCluster()
			c.kubectl("apply", "-k", "config/default")
			c.waitForKinds()
			Expect(c.WaitGuarded(ctx, releaseNamespace, "apikey-operator")).To(Succeed())
			operator, err := c.StartOperatorAs(ctx, releaseNamespace, "apikey-operator", GinkgoWriter, flags...)
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(func() { Expect(operator.Stop()).To(Succeed()) })

			for _, sample := range []string{"catalogue", "quickstart", ""} {
				c.kubectl("apply", "-k", "config/samples/"+sample)
			}
			c.kubectl("apply", "-f", "config/samples/quota.yaml")
			keys := &v1alpha1.ApiKeyList{}
			Expect(c.List(ctx, keys)).To(Succeed())
			names := make([]string, 0, len(keys.Items))
			for i := range keys.Items {
				key := &keys.Items[i]
				names = append(names, key.Namespace+"/"+key.Name)
				Eventually(c.reasonOf(key)).Should(Equal(v1alpha1.ReasonIssued), key.Name)
			}
			Expect(names).To(ConsistOf("default/shopify-orders", "default/status-page", "default/audit-2030", "shop/orders-client"))
			// Issued by the samples' own catalogue and policies, and not because there are none.
			refused := build.ApiKey("default", "refused", build.Roles("org.admin.setting.write"))
			// The API server admits no key until it knows what the new quota has used.
			Eventually(func() error { return c.Create(ctx, refused) }).Should(Succeed())
			Eventually(c.reasonOf(refused)).Should(Equal(v1alpha1.ReasonNotAllowed))
		},
		Entry("by default"),
		Entry("where an empty catalogue and a cluster without a policy deny every key", "--require-catalogue", "--require-policy"),
	)
})
