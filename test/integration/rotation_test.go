package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// annotate sets an annotation of a key, or removes it if value is empty.
func annotate(key *v1alpha1.ApiKey, name, value string) {
	GinkgoHelper()
	text := fmt.Sprintf("%q", value)
	if value == "" {
		text = "null"
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, name, text)
	Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// requestRotation requests a rotation with an overlap of an hour.
func requestRotation(key *v1alpha1.ApiKey) {
	GinkgoHelper()
	annotate(key, v1alpha1.AnnotationRotate, "on-call;overlap=1h")
}

// expectNewToken checks that a key was rotated once: the Secret holds the current token, and no rotation is in progress.
func expectNewToken(key *v1alpha1.ApiKey) {
	GinkgoHelper()
	reread(key)
	Expect(key.Status.Rotation).NotTo(BeNil())
	Expect(key.Status.Rotation.Count).To(BeEquivalentTo(1))
	Expect(key.Status.Rotation.RotatedAt).NotTo(BeNil())
	Expect(key.PendingToken()).To(BeNil())
	Expect(key.Status.SecretDeletedAt).To(BeNil())
	Expect(key.Condition(v1alpha1.ConditionRotationBlocked)).To(BeNil())
	secret := reread(secretOf(key))
	Expect(metav1.IsControlledBy(secret, key)).To(BeTrue(), "the Secret is the key's own")
	Expect(secret.Immutable).To(BeNil())
	Expect(digestOf(secret, key)).To(Equal(key.Status.Hash))
}

// expectRotated checks that a key was rotated once with an overlap of an hour.
func expectRotated(key *v1alpha1.ApiKey) {
	GinkgoHelper()
	expectNewToken(key)
	Expect(reason(key)).To(Equal(v1alpha1.ReasonIssued))
	retiring := key.RetiringToken()
	Expect(retiring).NotTo(BeNil())
	Expect(retiring.Hash).NotTo(Equal(key.Status.Hash))
	Expect(retiring.RetiresAt.Sub(key.Status.Rotation.RotatedAt.Time)).To(BeNumerically("~", time.Hour, time.Second))
}

func blockedReason(key *v1alpha1.ApiKey) string {
	GinkgoHelper()
	if blocked := reread(key).Condition(v1alpha1.ConditionRotationBlocked); blocked != nil {
		return blocked.Reason
	}
	return ""
}

var _ = Describe("A rotation", Label("releases"), func() {
	var clock interface {
		Step(d time.Duration)
		Now() time.Time
	}
	var o harness.Options
	var c *harness.Controllers
	BeforeEach(func() {
		fake := fakeClock()
		clock = fake
		o = options()
		o.Clock = fake
		c = controllers(o)
	})
	issued := func(options ...build.Option) *v1alpha1.ApiKey {
		GinkgoHelper()
		key := build.ApiKey(namespace(), "lasting", options...)
		create(key)
		settle(c, key)
		expectIssued(key)
		return key
	}
	pass := func(key *v1alpha1.ApiKey) {
		GinkgoHelper()
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		reread(key)
	}

	It("on request costs one read of the Secret and three writes, and keeps everything but the token", func() {
		key := issued(build.CIDRs("10.0.0.0/8"))
		before, secret := key.Status.DeepCopy(), reread(secretOf(key))
		requestRotation(key)
		network := &harness.Network{}
		counted := o
		counted.Network = network
		_, err := controllers(counted).Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(network.Requests()).To(HaveExactElements(
			harness.Request{Method: http.MethodGet, Namespace: key.Namespace, Resource: "apikeys", Name: key.Name}, // a manager reads it from its cache
			harness.Request{Method: http.MethodGet, Namespace: key.Namespace, Resource: "secrets", Name: key.Name},
			harness.Request{Method: http.MethodPatch, Namespace: key.Namespace, Resource: "apikeys/status", Name: key.Name},
			harness.Request{Method: http.MethodPatch, Namespace: key.Namespace, Resource: "secrets", Name: key.Name},
			harness.Request{Method: http.MethodPatch, Namespace: key.Namespace, Resource: "apikeys/status", Name: key.Name},
		))
		expectRotated(key)
		Expect(key.RetiringToken().Hash).To(Equal(before.Hash))
		Expect(key.RetiringToken().TokenHint).To(Equal(before.TokenHint))
		Expect(key.Status.IssuedAt).To(Equal(before.IssuedAt))
		Expect(key.Status.ExpiresAt).To(Equal(before.ExpiresAt))
		Expect(reread(secretOf(key)).UID).To(Equal(secret.UID))
	})

	It("happens once for each value of the annotation, even if a tool flips between two", func() {
		key := issued()
		for i := range 20 {
			annotate(key, v1alpha1.AnnotationRotate, []string{"a;overlap=0s", "b;overlap=0s"}[i%2])
			pass(key)
			clock.Step(time.Hour)
			pass(key)
		}
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(2))
		Expect(key.Status.Rotation.HandledRequests).To(Equal([]string{"a;overlap=0s", "b;overlap=0s"}))
	})

	It("is not requested by an annotation from before the first token", func() {
		key := issued(build.Annotation(v1alpha1.AnnotationRotate, "1"), build.Annotation(v1alpha1.AnnotationRetire, "1"))
		clock.Step(time.Hour)
		pass(key)
		Expect(key.Status.Rotation.Count).To(BeZero())
		annotate(key, v1alpha1.AnnotationRotate, "2")
		pass(key)
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(1))
		Expect(key.Status.Rotation.HandledRequests).To(Equal([]string{"1", "2"}))
	})

	It("waits for the end of the overlap, and for a minute after the last one", func() {
		key := issued()
		requestRotation(key)
		pass(key)
		first := *key.RetiringToken()
		annotate(key, v1alpha1.AnnotationRotate, "again;overlap=1s")
		pass(key)
		Expect(key.Condition(v1alpha1.ConditionRotationBlocked)).To(HaveField("Reason", "Waiting"))
		Expect(key.Condition(v1alpha1.ConditionRotationBlocked).Message).To(And(
			ContainSubstring("begins at "+first.RetiresAt.UTC().Format(time.RFC3339)), ContainSubstring(v1alpha1.AnnotationRetire)))
		clock.Step(first.RetiresAt.Sub(clock.Now()) - time.Second)
		pass(key)
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(1))
		Expect(*key.RetiringToken()).To(Equal(first))
		clock.Step(time.Second)
		pass(key)
		Expect(key.RetiringToken()).To(BeNil(), "the retiring token goes first")
		pass(key)
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(2))
		Expect(blockedReason(key)).To(BeEmpty())

		annotate(key, v1alpha1.AnnotationRotate, "third;overlap=0s")
		clock.Step(59 * time.Second)
		pass(key)
		pass(key)
		Expect(key.Condition(v1alpha1.ConditionRotationBlocked).Message).To(ContainSubstring("at least a minute apart"))
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(2))
		clock.Step(time.Second)
		pass(key)
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(3))
	})

	It("that waits is withdrawn with its annotation", func() {
		key := issued()
		requestRotation(key)
		pass(key)
		first := *key.RetiringToken()
		annotate(key, v1alpha1.AnnotationRotate, "again;overlap=1s")
		pass(key)
		Expect(blockedReason(key)).To(Equal("Waiting"))
		annotate(key, v1alpha1.AnnotationRotate, "")
		pass(key)
		Expect(blockedReason(key)).To(BeEmpty())
		clock.Step(first.RetiresAt.Sub(clock.Now()))
		pass(key)
		pass(key)
		Expect(key.RetiringToken()).To(BeNil())
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(1))
		Expect(key.Status.Rotation.HandledRequests).To(HaveLen(1))
	})

	It("without an overlap ends the current and the retiring token at once", func() {
		key := issued()
		requestRotation(key)
		pass(key)
		clock.Step(time.Minute)
		annotate(key, v1alpha1.AnnotationRotate, "leaked;overlap=0s")
		pass(key)
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(2))
		Expect(key.RetiringToken()).To(BeNil())
	})

	It("leaves a retiring token that a request ends at once, once for each value", func() {
		key := issued(build.Annotation(v1alpha1.AnnotationRetire, "early"))
		requestRotation(key)
		pass(key)
		Expect(key.RetiringToken()).NotTo(BeNil())
		annotate(key, v1alpha1.AnnotationRetire, "now")
		pass(key)
		Expect(key.RetiringToken()).To(BeNil())
		clock.Step(time.Minute)
		annotate(key, v1alpha1.AnnotationRotate, "again;overlap=1h")
		pass(key)
		Expect(key.RetiringToken()).NotTo(BeNil(), "the old request ends no other token")
		Expect(key.Status.Rotation.HandledRetirements).To(Equal([]string{"early", "now"}))
	})

	It("follows at once on what else was asked for with it", func() {
		key := issued()
		key.Spec.Suspend = ptr.To(true)
		metav1.SetMetaDataAnnotation(&key.ObjectMeta, v1alpha1.AnnotationRetire, "now")
		metav1.SetMetaDataAnnotation(&key.ObjectMeta, v1alpha1.AnnotationRotate, "now;overlap=1h")
		Expect(admin.Update(ctx, key)).To(Succeed())
		for soon := true; soon; reread(key) {
			result, err := c.Pass(ctx, key)
			Expect(err).NotTo(HaveOccurred())
			soon = result.RequeueAfter < time.Second
		}
		Expect(reason(key)).To(Equal(v1alpha1.ReasonSuspended))
		Expect(key.Status.Rotation.HandledRetirements).To(Equal([]string{"now"}))
		expectNewToken(key)
	})

	It("comes by schedule, up to a tenth of the period early, and once if it was missed", func() {
		key := issued(build.Rotation(v1alpha1.ApiKeyRotation{Every: "30d", Overlap: "1h"}))
		next := key.Status.Rotation.NextAt.Time
		Expect(next).To(BeTemporally(">=", key.Status.IssuedAt.Add(27*24*time.Hour)))
		Expect(next).To(BeTemporally("<=", key.Status.IssuedAt.Add(30*24*time.Hour)))
		clock.Step(next.Sub(clock.Now()) - 1)
		pass(key)
		Expect(key.Status.Rotation.Count).To(BeZero())
		clock.Step(1)
		pass(key)
		expectRotated(key)
		clock.Step(40 * 24 * time.Hour)
		for range 5 {
			pass(key)
		}
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(2))
		Expect(key.Status.Rotation.NextAt).To(BeNil(), "the key expires before")
	})

	It("is no more frequent by schedule than the operator allows", func() {
		key := issued(build.Rotation(v1alpha1.ApiKeyRotation{Every: "1m"}))
		Expect(key.Status.Rotation.NextAt.Sub(key.Status.IssuedAt.Time)).To(BeNumerically(">=", 54*time.Minute))
	})

	It("by schedule is blocked if the Secret was taken, and on request creates it", func() {
		key := issued(build.Rotation(v1alpha1.ApiKeyRotation{Every: "2h"}))
		Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
		hash := key.Status.Hash
		clock.Step(2 * time.Hour)
		pass(key)
		Expect(blockedReason(key)).To(Equal("SecretTaken"))
		Expect(reason(key)).To(Equal(v1alpha1.ReasonIssued))
		Expect(key.Status.Hash).To(Equal(hash))
		Expect(key.PendingToken()).To(BeNil(), "a blocked rotation mints nothing")
		requestRotation(key)
		pass(key)
		expectRotated(key)
		Expect(key.RetiringToken().Hash).To(Equal(hash))
	})

	It("by schedule that was begun before the Secret was taken, goes on by request", func() {
		key := issued(build.Rotation(v1alpha1.ApiKeyRotation{Every: "2h"}))
		clock.Step(2 * time.Hour)
		network, dead := crash(1, harness.LostAnswer)
		dying := o
		dying.Network = network
		_, _ = controllers(dying).Pass(ctx, key)
		Expect(*dead).To(BeTrue())
		Expect(reread(key).PendingToken()).NotTo(BeNil())
		Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
		pass(key)
		Expect(blockedReason(key)).To(Equal("SecretTaken"))
		requestRotation(key)
		pass(key)
		expectRotated(key)
		Expect(key.Status.Rotation.HandledRequests).To(Equal([]string{"on-call;overlap=1h"}))
	})

	It("leaves a foreign Secret alone, and goes on once it is gone", func() {
		key := issued()
		Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
		other := secretOf(key)
		other.StringData = map[string]string{"password": "mine"}
		create(other)
		requestRotation(key)
		pass(key)
		Expect(blockedReason(key)).To(Equal("SecretConflict"))
		Expect(reread(secretOf(key)).Data).To(HaveKeyWithValue("password", []byte("mine")))
		Expect(reason(key)).To(Equal(v1alpha1.ReasonIssued))
		Expect(key.Condition(v1alpha1.ConditionStalled)).To(BeNil())
		Expect(admin.Delete(ctx, other)).To(Succeed())
		pass(key)
		expectRotated(key)
	})

	It("waits while its own Secret is being deleted under finalizers", func() {
		key := issued()
		secret := reread(secretOf(key))
		secret.Finalizers = []string{"example.com/hold"}
		Expect(admin.Update(ctx, secret)).To(Succeed())
		Expect(admin.Delete(ctx, secret)).To(Succeed())
		requestRotation(key)
		pass(key)
		Expect(blockedReason(key)).To(Equal("SecretConflict"))
		reread(secret).Finalizers = nil
		Expect(admin.Update(ctx, secret)).To(Succeed())
		pass(key)
		expectRotated(key)
	})

	It("is refused where the key would not be issued today, and says so", func() {
		key := issued()
		hash := key.Status.Hash
		policy := build.Policy(key.Namespace+"-strict", []string{"other.*"})
		rule(policy)
		requestRotation(key)
		pass(key)
		blocked := key.Condition(v1alpha1.ConditionRotationBlocked)
		Expect(blocked).To(HaveField("Reason", "NotAllowed"))
		Expect(blocked.Message).To(ContainSubstring("because the key would not be issued today"))
		Expect(key.Status.Hash).To(Equal(hash))
		Expect(reason(key)).To(Equal(v1alpha1.ReasonIssued))
		Expect(admin.Delete(ctx, policy)).To(Succeed())
		pass(key)
		expectRotated(key)
	})

	It("that was delivered is confirmed, whatever roles and policies say by then", func() {
		key := issued()
		requestRotation(key)
		network, dead := crash(2, harness.LostAnswer)
		dying := o
		dying.Network = network
		_, _ = controllers(dying).Pass(ctx, key)
		Expect(*dead).To(BeTrue())
		pending := reread(key).PendingToken()
		Expect(pending).NotTo(BeNil())
		rule(build.Policy(key.Namespace+"-strict", []string{"other.*"}))
		pass(key)
		Expect(key.Status.Hash).To(Equal(pending.Hash))
		expectRotated(key)
	})

	It("names a request that can't be read, and rotates nothing", func() {
		key := issued()
		for _, value := range []string{"1;overlap=soon", "1;overlap=31d", ";overlap=1h", strings.Repeat("x", 65), strings.Repeat("y", 100_000), "a\tb"} {
			annotate(key, v1alpha1.AnnotationRotate, value)
			pass(key)
			blocked := key.Condition(v1alpha1.ConditionRotationBlocked)
			Expect(blocked).To(HaveField("Reason", "InvalidRequest"))
			Expect(blocked.Message).To(And(ContainSubstring(v1alpha1.AnnotationRotate), ContainSubstring("set a valid value")))
			Expect(key.Status.Rotation).To(BeNil())
		}
		annotate(key, v1alpha1.AnnotationRotate, "")
		annotate(key, v1alpha1.AnnotationRetire, "1;overlap=0s")
		pass(key)
		Expect(key.Condition(v1alpha1.ConditionRotationBlocked).Message).To(ContainSubstring(v1alpha1.AnnotationRetire))
		annotate(key, v1alpha1.AnnotationRetire, "")
		pass(key)
		Expect(blockedReason(key)).To(BeEmpty())
	})

	It("gives the Secret of revealFor back, for as long as at the issue", func() {
		key := issued(build.Secret(v1alpha1.ApiKeySecret{RevealFor: "15m"}))
		clock.Step(15 * time.Minute)
		pass(key)
		Expect(exists(secretOf(key))).To(BeFalse())
		requestRotation(key)
		pass(key)
		expectRotated(key)
		clock.Step(15*time.Minute - time.Second)
		pass(key)
		Expect(exists(secretOf(key))).To(BeTrue())
		clock.Step(2 * time.Second)
		pass(key)
		Expect(exists(secretOf(key))).To(BeFalse())
		Expect(key.Status.SecretDeletedAt).NotTo(BeNil())
	})

	It("never extends a key's life, and ends with it", func() {
		key := issued(build.After("90m"))
		requestRotation(key)
		clock.Step(time.Hour)
		pass(key)
		expectRotated(key)
		Expect(key.RetiringToken().RetiresAt.After(key.Status.ExpiresAt.Time)).To(BeTrue())
		clock.Step(30 * time.Minute)
		pass(key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonExpired))
		Expect(key.RetiringToken()).To(BeNil())
		Expect(exists(secretOf(key))).To(BeFalse())
		annotate(key, v1alpha1.AnnotationRotate, "too-late")
		pass(key)
		Expect(key.Status.Rotation.Count).To(BeEquivalentTo(1))
	})

	It("does nothing by a wrong clock", func() {
		key := issued(build.Rotation(v1alpha1.ApiKeyRotation{Every: "2h", Overlap: "1h"}))
		skewed := o
		skewed.Skew = func(context.Context) (time.Duration, error) { return time.Hour, nil }
		wrong := controllers(skewed)
		clock.Step(3 * time.Hour)
		_, err := wrong.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(reread(key).Status.Rotation.Count).To(BeZero())
		Expect(key.Condition(v1alpha1.ConditionClockSkewed)).NotTo(BeNil())
		pass(key)
		expectRotated(key)
	})

	It("takes no time from a clock that is set forward while the token is delivered", func() {
		key := issued()
		requestRotation(key)
		jumping := o
		jumping.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if r.Writes() && r.Resource == "secrets" {
				clock.Step(30 * 24 * time.Hour)
			}
			return harness.None
		}}
		_, err := controllers(jumping).Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(reread(key).PendingToken()).NotTo(BeNil(), "the token is delivered and not confirmed")
		clock.Step(-30 * 24 * time.Hour)
		pass(key)
		expectRotated(key)
		Expect(key.RetiringToken().RetiresAt.Time).To(BeTemporally("~", clock.Now().Add(time.Hour), time.Second))
	})

	It("replaces an immutable Secret of an older release on request, with an overlap of a day", func() {
		key := issued()
		Expect(self.Delete(ctx, secretOf(key))).To(Succeed())
		minted := token.Mint("ak")
		old := build.TokenSecret(key, minted.Reveal())
		old.Immutable = ptr.To(true)
		plant(old)
		requestRotation(key)
		pass(key)
		expectNewToken(key)
		Expect(reread(secretOf(key)).UID).NotTo(Equal(old.UID))
		Expect(key.RetiringToken().RetiresAt.Sub(key.Status.Rotation.RotatedAt.Time)).To(BeNumerically("~", 24*time.Hour, time.Second))
	})

	It("replaces a planted token of its own Secret", func() {
		key := issued()
		planted := reread(secretOf(key))
		planted.Data["token"] = []byte(token.Mint("ak").Reveal())
		Expect(self.Patch(ctx, planted, client.MergeFrom(reread(secretOf(key))))).To(Succeed())
		requestRotation(key)
		pass(key)
		expectRotated(key)
	})

	It("ignores labels that somebody else edits in the meantime", func() {
		key := issued()
		requestRotation(key)
		edited := o
		edited.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if r.Writes() && r.Resource == "secrets" {
				secret := reread(secretOf(key))
				metav1.SetMetaDataLabel(&secret.ObjectMeta, "team", "a")
				Expect(admin.Update(ctx, secret)).To(Succeed())
			}
			return harness.None
		}}
		_, err := controllers(edited).Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		expectRotated(key)
		Expect(reread(secretOf(key)).Labels).To(HaveKeyWithValue("team", "a"))
	})

	It("commits another token if the Secret is taken between commit and delivery", func() {
		key := issued()
		requestRotation(key)
		taken := o
		taken.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if r.Writes() && r.Resource == "secrets" && r.Method == http.MethodPatch {
				Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
			}
			return harness.None
		}}
		_, err := controllers(taken).Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		first := reread(key).PendingToken()
		Expect(first).NotTo(BeNil())
		pass(key)
		expectRotated(key)
		Expect(key.Status.Hash).NotTo(Equal(first.Hash))
	})

	It("deletes the Secret that it created if the key has expired in the meantime", func() {
		key := issued(build.After("2h"))
		Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
		requestRotation(key)
		slow := o
		writes := 0
		slow.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if r.Writes() {
				if writes++; writes == 2 { // before the Secret is created, another operator expires the key
					clock.Step(2 * time.Hour)
					pass(key)
					Expect(reason(key)).To(Equal(v1alpha1.ReasonExpired))
				}
			}
			return harness.None
		}}
		_, err := controllers(slow).Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(exists(secretOf(key))).To(BeFalse())
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonExpired))
	})

	It("is told of by events", func() {
		m, err := harness.StartManager(options(), workers, "")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(m.Stop)
		key := build.ApiKey(namespace(), "told")
		create(key)
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonIssued))
		annotate(key, v1alpha1.AnnotationRotate, "1;overlap=x")
		Eventually(func() string { return blockedReason(key) }).Should(Equal("InvalidRequest"))
		annotate(key, v1alpha1.AnnotationRotate, "1;overlap=2s")
		Eventually(func() bool { rotation := reread(key).Status.Rotation; return rotation != nil && rotation.Count == 1 }).Should(BeTrue())
		Eventually(func() *v1alpha1.ApiKeyRetiringToken { return reread(key).RetiringToken() }).Should(BeNil())
		Eventually(eventsIn).WithArguments(key.Namespace).Should(ConsistOf(
			HavePrefix("Normal Issued: "),
			HavePrefix("Warning InvalidRequest: the key is not rotated: annotation apikey-operator.io/rotate"),
			And(HavePrefix("Normal Rotated: a new token"), ContainSubstring("is accepted until")),
			HavePrefix("Normal TokenRetired: "),
		))
	})

	// With ROTATING=500, 500 keys rotate.
	It("of many keys reaches its end while a fifth of all requests fail, with two operators", func() {
		keys := number("ROTATING", 40)
		ns := namespace()
		all := make([]*v1alpha1.ApiKey, keys)
		for i := range all {
			all[i] = build.ApiKey(ns, fmt.Sprintf("key-%d", i))
			create(all[i])
			settle(c, all[i])
			requestRotation(all[i])
		}
		random := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 3))
		var mu sync.Mutex
		requests, faults, began := 0, 0, time.Now()
		for range 2 {
			faulty := options()
			faulty.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
				if !r.Writes() && r.Resource != "secrets" {
					return harness.None
				}
				mu.Lock()
				defer mu.Unlock()
				requests++
				if random.IntN(5) != 0 { // a fifth of the requests fail, in one of four ways
					return harness.None
				}
				faults++
				return harness.LostRequest + harness.Fault(random.IntN(4))
			}}
			running(faulty)
		}
		for _, key := range all {
			Eventually(func() int32 {
				if reread(key).Status.Rotation == nil {
					return 0
				}
				return key.Status.Rotation.Count
			}, 5*time.Minute).Should(BeEquivalentTo(1), key.Name)
			expectRotated(key)
		}
		mu.Lock()
		defer mu.Unlock()
		AddReportEntry("rotations", fmt.Sprintf("%d in %s, and %d of %d requests failed", keys, time.Since(began).Round(time.Second), faults, requests))
		Expect(faults).To(BeNumerically(">", keys/4))
	})
})
