package integration

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/build"
)

// kstatus is how Flux, kpt and others tell whether what they applied has come to be.
var _ = Describe("kstatus", func() {
	of := func(key *v1alpha1.ApiKey) status.Status {
		GinkgoHelper()
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(reread(key))
		Expect(err).NotTo(HaveOccurred())
		object := &unstructured.Unstructured{Object: content}
		object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiKey"))
		result, err := status.Compute(object)
		Expect(err).NotTo(HaveOccurred())
		return result.Status
	}

	It("reads an issued key as current, and a key that needs somebody as failed", func() {
		c := controllers(options())
		ns := namespace()
		issued, blocked, dead := build.ApiKey(ns, "issued"), build.ApiKey(ns, "blocked"), build.ApiKey(ns, "dead", build.At("2020-01-01T00:00:00Z"))
		foreign := secretOf(blocked)
		create(foreign)
		for _, key := range []*v1alpha1.ApiKey{issued, blocked, dead} {
			create(key)
			settle(c, key)
		}
		Expect(of(issued)).To(Equal(status.CurrentStatus))
		Expect(of(blocked)).To(Equal(status.FailedStatus))
		Expect(of(dead)).To(Equal(status.FailedStatus))
		DeferCleanup(func() { Expect(admin.DeleteAllOf(ctx, &v1alpha1.ApiKey{}, client.InNamespace(ns))).To(Succeed()) })
		rule(build.Policy("kstatus", []string{"test.none"}))
		refused := build.ApiKey(ns, "refused")
		create(refused)
		settle(c, refused)
		Expect(of(refused)).To(Equal(status.FailedStatus))
		_, err := c.Pass(ctx, issued)
		Expect(err).NotTo(HaveOccurred())
		Expect(condition(issued, v1alpha1.ConditionOutOfPolicy)).NotTo(BeNil())
		Expect(of(issued)).To(Equal(status.CurrentStatus), "out of policy, and yet it works")
		rule(build.Policy("kstatus-any", []string{"*"}))
		Expect(admin.Delete(ctx, foreign)).To(Succeed())
		settle(c, blocked)
		Expect(of(blocked)).To(Equal(status.CurrentStatus))
	})
})
