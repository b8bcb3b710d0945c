package integration

import (
	"context"
	"errors"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

var _ = Describe("Expiry", func() {
	var (
		clock *clocktesting.FakeClock
		c     *harness.Controllers
		ns    string
	)
	BeforeEach(func() {
		clock = fakeClock()
		o := options()
		o.Clock = clock
		c = controllers(o)
		ns = namespace()
	})
	// pass reconciles a key once with both controllers and returns when to reconcile it next.
	pass := func(key *v1alpha1.ApiKey) time.Duration {
		GinkgoHelper()
		result, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		collect, err := c.Collect(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		if result.RequeueAfter == 0 {
			return collect.RequeueAfter
		}
		return result.RequeueAfter
	}
	issued := func(options ...build.Option) *v1alpha1.ApiKey {
		GinkgoHelper()
		key := build.ApiKey(ns, "timed", options...)
		create(key)
		settle(c, key)
		return reread(key)
	}

	It("comes at the second of the deadline and not a nanosecond before", func() {
		key := issued(build.After("10m"), build.TTL("5m"))
		deadline := key.Status.ExpiresAt.Time
		Expect(deadline).To(BeTemporally("==", clock.Now().Add(10*time.Minute)))

		clock.SetTime(deadline.Add(-time.Nanosecond))
		Expect(pass(key)).To(BeNumerically("<=", time.Millisecond), "requeued for the expiry time")
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonIssued))
		Expect(exists(secretOf(key))).To(BeTrue())

		clock.SetTime(deadline)
		wait := pass(key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
		Expect(exists(secretOf(key))).To(BeFalse())
		Expect(meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionStalled)).To(BeTrue())
		Expect(wait).To(Equal(5*time.Minute), "deleted when its ttlAfterExpired has passed")

		clock.SetTime(deadline.Add(5*time.Minute - time.Nanosecond))
		pass(key)
		Expect(exists(key)).To(BeTrue())
		clock.SetTime(deadline.Add(5 * time.Minute))
		pass(key)
		Expect(exists(key)).To(BeFalse())
	})

	It("survives a restart, and a restart writes nothing", func() {
		key := issued(build.After("10m"))
		before := key.ResourceVersion
		o := options()
		o.Clock = clock
		c = controllers(o)
		clock.Step(5 * time.Minute)
		Expect(pass(key)).To(Equal(3*time.Minute), "requeued for the last fifth of the lifetime")
		Expect(reread(key).ResourceVersion).To(Equal(before))
		clock.Step(5 * time.Minute)
		pass(key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
	})

	It("is checked at least every ten minutes, since a wrong clock may have set the timer", func() {
		key := issued(build.After("90d"))
		Expect(pass(key)).To(Equal(10 * time.Minute))
	})

	It("doesn't delete a new key with the name of an expired one", func() {
		key := issued(build.After("10m"), build.TTL("0s"))
		clock.Step(10 * time.Minute)
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		expired := reread(key).DeepCopy()
		Expect(admin.Delete(ctx, key)).To(Succeed())
		successor := build.ApiKey(ns, key.Name)
		create(successor)
		c.Expiring.Client = frozen{Client: c.Expiring.Client, view: expired}
		_, err = c.Collect(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(exists(successor)).To(BeTrue())
	})

	It("is announced in the last fifth of a key's lifetime", func() {
		key := issued(build.After("10m"))
		expiring := func() bool {
			return meta.IsStatusConditionTrue(reread(key).Status.Conditions, v1alpha1.ConditionExpiring)
		}
		clock.Step(8*time.Minute - time.Nanosecond)
		pass(key)
		Expect(expiring()).To(BeFalse())
		clock.Step(time.Nanosecond)
		pass(key)
		Expect(expiring()).To(BeTrue())
		Expect(reason(key)).To(Equal(v1alpha1.ReasonIssued), "the key still works")
		clock.Step(2 * time.Minute)
		pass(key)
		Expect(expiring()).To(BeFalse())
	})

	It("is permanent: a clock that is set back does not bring a key back", func() {
		key := issued(build.After("10m"))
		clock.Step(10 * time.Minute)
		pass(key)
		clock.Step(-20 * time.Minute)
		pass(key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
		Expect(exists(secretOf(key))).To(BeFalse())
	})

	It("in the past leaves no token, and keeps the object for its ttlAfterExpired", func() {
		key := build.ApiKey(ns, "past", build.At("2020-01-01T00:00:00Z"), build.TTL("1h"))
		create(key)
		pass(key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
		Expect(key.Status.Hash).To(BeEmpty())
		Expect(exists(secretOf(key))).To(BeFalse())
		Expect(exists(key)).To(BeTrue(), "its owner can see why")
		clock.Step(time.Hour)
		pass(key)
		Expect(exists(key)).To(BeFalse())
	})

	It("of a key that never got its Secret starts ttlAfterExpired when the key is marked as expired", func() {
		key := build.ApiKey(ns, "blocked", build.After("10m"), build.TTL("1h"))
		create(key)
		foreign := secretOf(key)
		create(foreign)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonSecretConflict))
		clock.Step(48 * time.Hour) // no operator ran
		pass(key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
		Expect(exists(key)).To(BeTrue(), "its owner can see why")
		Expect(exists(foreign)).To(BeTrue(), "a foreign Secret is never touched")
		clock.Step(time.Hour)
		pass(key)
		Expect(exists(key)).To(BeFalse())
	})

	It("with a ttlAfterExpired of zero deletes the object at once", func() {
		key := issued(build.After("10m"), build.TTL("0s"))
		clock.Step(10 * time.Minute)
		pass(key)
		Expect(exists(key)).To(BeFalse())
	})

	It("leaves a foreign Secret that took the place of a claimed one", func() {
		key := issued(build.After("10m"))
		Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
		theirs := secretOf(key)
		create(theirs)
		clock.Step(10 * time.Minute)
		pass(key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
		Expect(exists(theirs)).To(BeTrue())
	})

	DescribeTable("leaves a tombstone where the object would come back",
		func(mark build.Option) {
			key := issued(build.After("10m"), build.TTL("0s"), mark)
			clock.Step(10 * time.Minute)
			pass(key)
			clock.Step(365 * 24 * time.Hour)
			Expect(pass(key)).To(BeZero(), "nothing is due")
			Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
			Expect(exists(secretOf(key))).To(BeFalse())
			ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
			Expect(ready.Message).To(ContainSubstring("this object is kept because of"))
		},
		Entry("Argo CD", build.Annotation("argocd.argoproj.io/tracking-id", "app:apikey-operator.io/ApiKey:ns/timed")),
		Entry("Flux", build.Label("kustomize.toolkit.fluxcd.io/name", "keys")),
		Entry("a person", build.Annotation("apikey-operator.io/keep", "true")),
	)

	It("deletes the kept object once its mark is removed", func() {
		key := issued(build.After("10m"), build.TTL("0s"), build.Label("kustomize.toolkit.fluxcd.io/name", "keys"))
		clock.Step(10 * time.Minute)
		pass(key)
		reread(key).Labels = nil
		Expect(admin.Update(ctx, key)).To(Succeed())
		pass(key)
		Expect(exists(key)).To(BeFalse())
	})

	It("deletes the Secret after revealFor, once, and the key stays valid", func() {
		key := issued(build.Never(), build.Secret(v1alpha1.ApiKeySecret{RevealFor: "15m"}))
		clock.Step(15*time.Minute - time.Nanosecond)
		pass(key)
		Expect(exists(secretOf(key))).To(BeTrue())
		clock.Step(time.Nanosecond)
		pass(key)
		Expect(exists(secretOf(key))).To(BeFalse())
		expectReady := func() {
			Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonIssued))
			Expect(key.Status.SecretDeletedAt.Time).To(BeTemporally("==", clock.Now()))
		}
		expectReady()
		create(secretOf(key)) // the operator ignores later Secrets with that name
		pass(key)
		expectReady()
		Expect(exists(secretOf(key))).To(BeTrue())
	})

	Describe("with a clock that is off", func() {
		var skew time.Duration
		var failure error
		BeforeEach(func() {
			skew, failure = 0, nil
			o := options()
			o.Clock = clock
			o.Skew = func(context.Context) (time.Duration, error) { return skew, failure }
			c = controllers(o)
		})
		skewed := func(key *v1alpha1.ApiKey) *metav1.Condition {
			return meta.FindStatusCondition(reread(key).Status.Conditions, v1alpha1.ConditionClockSkewed)
		}

		It("expires and deletes nothing until it is right again, and says so", func() {
			key := issued(build.After("1h"), build.TTL("0s"))
			skew = 24 * time.Hour
			clock.Step(24 * time.Hour)
			Expect(pass(key)).To(Equal(time.Minute))
			Expect(skewed(key)).To(HaveField("Message", ContainSubstring("24h0m0s ahead of")))
			Expect(reason(key)).To(Equal(v1alpha1.ReasonIssued))
			Expect(exists(secretOf(key))).To(BeTrue())

			skew = 0
			clock.Step(-24 * time.Hour)
			pass(key)
			Expect(skewed(key)).To(BeNil())
			expectIssued(key)
		})

		It("deletes no expired object", func() {
			key := issued(build.After("1h"), build.TTL("1h"))
			clock.Step(time.Hour)
			pass(key)
			Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
			skew = 5*time.Minute + time.Second
			clock.Step(time.Hour)
			pass(key)
			Expect(exists(key)).To(BeTrue())
			Expect(skewed(key)).NotTo(BeNil())
			skew = 5 * time.Minute
			pass(key)
			Expect(exists(key)).To(BeFalse())
		})

		It("issues nothing, not even a key that never expires, whose issuedAt would stay wrong", func() {
			skew = -time.Hour
			for _, key := range []*v1alpha1.ApiKey{build.ApiKey(ns, "timed"), build.ApiKey(ns, "timeless", build.Never())} {
				create(key)
				Expect(pass(key)).To(Equal(time.Minute))
				Expect(skewed(key)).To(HaveField("Message", ContainSubstring("1h0m0s behind")))
				Expect(reason(key)).To(Equal(v1alpha1.ReasonIssuing))
				Expect(key.Status.Hash).To(BeEmpty())
			}
			skew = 0
			key := build.ApiKey(ns, "timeless")
			settle(c, key)
			expectIssued(key)
		})

		It("that is corrected while it is being compared decides nothing by its old time", func() {
			key := issued(build.After("1h"))
			clock.Step(24 * time.Hour)
			o := options()
			o.Clock = clock
			o.Skew = func(context.Context) (time.Duration, error) {
				clock.Step(-24 * time.Hour)
				return 0, nil
			}
			_, err := controllers(o).Pass(ctx, key)
			Expect(err).NotTo(HaveOccurred())
			expectIssued(key)
		})

		It("that can't be compared expires nothing either", func() {
			key := issued(build.After("1h"), build.TTL("0s"))
			failure = errors.New("no answer")
			clock.Step(time.Hour)
			_, err := c.Pass(ctx, key)
			Expect(err).To(MatchError(failure))
			expectIssued(key)
		})
	})
})
