package integration

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

var _ = Describe("A suspended key", Label("releases"), func() {
	edit := func(key *v1alpha1.ApiKey, suspend, manager string) {
		GinkgoHelper()
		patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":`+suspend+`}}`))
		Expect(admin.Patch(ctx, key, patch, client.FieldOwner(manager))).To(Succeed())
	}
	ready := func(key *v1alpha1.ApiKey, want v1alpha1.Reason) {
		GinkgoHelper()
		condition := reread(key).Condition(v1alpha1.ConditionReady)
		Expect(condition).To(HaveField("Reason", string(want)))
		Expect(condition).To(HaveField("Status", BeEquivalentTo("True")))
		Expect(key.Condition(v1alpha1.ConditionStalled)).To(BeNil())
		Expect(key.Status.ObservedGeneration).To(Equal(key.Generation))
	}

	It("keeps its token and its Secret, stays Ready, and can be resumed, as often as somebody likes", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "lasting")
		create(key)
		settle(c, key)
		ready(key, v1alpha1.ReasonIssued)
		issued, secret := key.Status.DeepCopy(), reread(secretOf(key))
		for _, suspend := range []string{"true", "false", "true", "null"} {
			edit(key, suspend, "security-team")
			settle(c, key)
			want := v1alpha1.ReasonIssued
			if suspend == "true" {
				want = v1alpha1.ReasonSuspended
			}
			ready(key, want)
			Expect(key.Status.Hash).To(Equal(issued.Hash))
			Expect(key.Status.IssuedAt).To(Equal(issued.IssuedAt))
			Expect(key.Status.ExpiresAt).To(Equal(issued.ExpiresAt))
			Expect(reread(secretOf(key)).UID).To(Equal(secret.UID))
		}
	})

	It("is told of by an event, with the field manager that did it", func() {
		m, err := harness.StartManager(options(), workers, "")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(m.Stop)
		key := build.ApiKey(namespace(), "told")
		create(key)
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonIssued))
		edit(key, "true", "security-team")
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonSuspended))
		edit(key, "false", "on-call")
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonIssued))
		Eventually(eventsIn).WithArguments(key.Namespace).Should(ConsistOf(
			HavePrefix("Normal Issued: the token is in Secret"),
			And(HavePrefix("Warning Suspended: the key is suspended"), HaveSuffix(`(field manager "security-team")`)),
			And(HavePrefix("Normal Resumed: "), HaveSuffix(`(field manager "on-call")`)),
		))
	})

	It("is issued even if it was suspended before", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "early")
		create(key)
		edit(key, "true", "security-team")
		settle(c, key)
		ready(key, v1alpha1.ReasonSuspended)
		Expect(key.Status.IssuedAt).NotTo(BeNil())
		Expect(reread(secretOf(key)).Data).To(HaveKey("token"))
	})

	It("loses its Secret and expires in its time", func() {
		clock := fakeClock()
		o := options()
		o.Clock = clock
		c := controllers(o)
		key := build.ApiKey(namespace(), "passing", build.After("1h"), build.Secret(v1alpha1.ApiKeySecret{RevealFor: "15m"}))
		create(key)
		settle(c, key)
		edit(key, "true", "security-team")
		settle(c, key)
		clock.Step(15 * time.Minute)
		settle(c, key)
		ready(key, v1alpha1.ReasonSuspended)
		Expect(exists(secretOf(key))).To(BeFalse())
		clock.Step(45 * time.Minute)
		settle(c, key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
		edit(key, "false", "security-team")
		settle(c, key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired), "a key that has expired never comes back")
	})
})
