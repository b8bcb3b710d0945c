package integration

import (
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

var _ = Describe("The quota of config/samples", func() {
	It("lets a namespace have so many keys and no more", func() {
		text, err := os.ReadFile(filepath.Join(plane.Root, "config", "samples", "quota.yaml"))
		Expect(err).NotTo(HaveOccurred())
		quota := &corev1.ResourceQuota{}
		Expect(yaml.UnmarshalStrict(text, quota)).To(Succeed())
		Expect(quota.Spec.Hard).To(HaveLen(1))
		quota.Namespace = namespace()
		for name := range quota.Spec.Hard {
			quota.Spec.Hard[name] = *resource.NewQuantity(1, resource.DecimalSI) // creating as many keys as the sample allows takes too long
		}
		create(build.ApiKey(quota.Namespace, "first"))
		create(quota)
		// The quota refuses every key until the controller manager has counted them. It discovers new kinds every 30 seconds.
		Eventually(func() error {
			return admin.Create(ctx, build.ApiKey(quota.Namespace, "second"), client.DryRunAll)
		}).Should(MatchError(ContainSubstring("exceeded quota: api-keys, requested: count/apikeys.apikey-operator.io=1, " +
			"used: count/apikeys.apikey-operator.io=1, limited: count/apikeys.apikey-operator.io=1")))
	})
})
