package integration

import (
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

var _ = Describe("Issuing", Label("releases"), func() {
	It("takes three writes, and delivers exactly the documented Secret", func() {
		network := &harness.Network{}
		o := options()
		o.Network = network
		c := controllers(o)
		key := build.ApiKey(namespace(), "happy", build.Label("team", "a"), build.Annotation("note", "b"))
		create(key)
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())

		Expect(network.Requests()).To(HaveExactElements(
			harness.Request{Method: http.MethodGet, Namespace: key.Namespace, Resource: "apikeys", Name: "happy"}, // a manager reads it from its cache
			harness.Request{Method: http.MethodPatch, Namespace: key.Namespace, Resource: "apikeys/status", Name: "happy"},
			harness.Request{Method: http.MethodPost, Namespace: key.Namespace, Resource: "secrets"},
			harness.Request{Method: http.MethodPatch, Namespace: key.Namespace, Resource: "apikeys/status", Name: "happy"},
		))
		expectIssued(key)
		Expect(key.Status.ExpiresAt.Sub(key.Status.IssuedAt.Time).Hours()).To(BeNumerically("~", 90*24, 1))
		Expect(key.Status.Expires).To(HaveSuffix("Z"))
		Expect(key.Status.Hash).To(MatchRegexp(`^sha256:[0-9a-f]{64}$`))
		Expect(key.Status.TokenHint).To(MatchRegexp(`^ak_[0-9A-Za-z]{4}$`))

		secret := reread(secretOf(key))
		Expect(secret.Type).To(BeEquivalentTo("apikey-operator.io/token"))
		Expect(secret.Immutable).To(BeNil())
		Expect(secret.Labels).To(Equal(map[string]string{"app.kubernetes.io/managed-by": "apikey-operator"}))
		Expect(secret.Annotations).To(BeEmpty())
		Expect(secret.OwnerReferences).To(Equal([]metav1.OwnerReference{{
			APIVersion: "apikey-operator.io/v1alpha1", Kind: "ApiKey", Name: "happy", UID: key.UID,
			Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(false),
		}}))
	})

	It("delivers under the name and key in the spec", func() {
		key := build.ApiKey(namespace(), "named", build.Never(), build.Secret(v1alpha1.ApiKeySecret{Name: "other", Key: "API_KEY"}))
		create(key)
		settle(controllers(options()), key)
		expectIssued(key)
		Expect(key.Status.SecretName).To(Equal("other"))
		Expect(key.Status.Expires).To(Equal("never"))
		Expect(key.Status.ExpiresAt).To(BeNil())
	})

	It("never mints again once its user has claimed the Secret", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "claimed")
		create(key)
		settle(c, key)
		Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
		before := reread(key).ResourceVersion
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(exists(secretOf(key))).To(BeFalse())
		Expect(reread(key).ResourceVersion).To(Equal(before), "nothing was written")
	})

	It("never adopts a planted Secret, however right it looks", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "planted")
		create(key)
		planted := token.Mint("ak")
		secret := build.TokenSecret(key, planted.Reveal())
		plant(secret)
		settle(c, key)
		expectIssued(key)
		Expect(key.Status.Hash).NotTo(Equal(planted.Digest().String()))
		Expect(reread(secretOf(key)).UID).NotTo(Equal(secret.UID), "the planted Secret is deleted")
	})

	It("waits for a planted Secret with finalizers, with a reason and without writes", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "held")
		create(key)
		secret := build.TokenSecret(key, token.Mint("ak").Reveal())
		secret.Finalizers = []string{"example.com/hold"}
		plant(secret)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonSecretConflict))
		before := key.ResourceVersion
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(reread(key).ResourceVersion).To(Equal(before))

		reread(secret).Finalizers = nil
		Expect(admin.Update(ctx, secret)).To(Succeed())
		settle(c, key)
		expectIssued(key)
	})

	It("never touches a Secret of another type, even one that the key owns", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "mistyped")
		create(key)
		secret := build.TokenSecret(key, token.Mint("ak").Reveal())
		secret.Type = corev1.SecretTypeOpaque
		create(secret)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonSecretConflict))
		Expect(reread(secretOf(key)).UID).To(Equal(secret.UID))
	})

	It("reports a foreign Secret, leaves it alone, and issues the key once it is gone", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "foreign")
		create(key)
		foreign := &corev1.Secret{ObjectMeta: secretOf(key).ObjectMeta, Data: map[string][]byte{"password": []byte("theirs")}}
		create(foreign)
		settle(c, key)
		Expect(reason(key)).To(Equal(v1alpha1.ReasonSecretConflict))
		stalled := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionStalled)
		Expect(stalled).NotTo(BeNil())
		Expect(stalled.Message).To(And(ContainSubstring(`Secret "foreign"`), ContainSubstring("delete it")))

		before := key.ResourceVersion
		result, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.RequeueAfter).To(And(BeNumerically(">=", 1e9), BeNumerically("<=", 60e9)), "polled at least once a minute")
		Expect(reread(key).ResourceVersion).To(Equal(before), "polling writes nothing")
		Expect(reread(foreign).Data).To(HaveKeyWithValue("password", []byte("theirs")))

		Expect(admin.Delete(ctx, foreign)).To(Succeed())
		settle(c, key)
		expectIssued(key)
		Expect(meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionStalled)).To(BeNil())
	})

	It("delivers to the first of two keys that name the same Secret, and to the second once the first is deleted", func() {
		c := controllers(options())
		ns := namespace()
		first := build.ApiKey(ns, "first", build.Secret(v1alpha1.ApiKeySecret{Name: "shared"}))
		second := build.ApiKey(ns, "second", build.Secret(v1alpha1.ApiKeySecret{Name: "shared"}))
		create(first)
		create(second)
		settle(c, first)
		settle(c, second)
		expectIssued(first)
		Expect(reason(second)).To(Equal(v1alpha1.ReasonSecretConflict))

		Expect(admin.Delete(ctx, first)).To(Succeed())
		Eventually(func() bool { return exists(secretOf(first)) }).Should(BeFalse(), "the garbage collector deletes the Secret")
		settle(c, second)
		expectIssued(second)
	})

	It("replaces the Secret of an older key with the same name", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "again")
		create(key)
		settle(c, key)
		old := key.DeepCopy()
		// An orphaned Secret outlives its key. A Secret that still refers to the deleted key as its owner is what a slow garbage collector
		// leaves.
		leftover := build.TokenSecret(key, string(reread(secretOf(key)).Data["token"]))
		Expect(admin.Delete(ctx, key, client.PropagationPolicy(metav1.DeletePropagationOrphan))).To(Succeed())
		Eventually(func() bool { return exists(key.DeepCopy()) }).Should(BeFalse())
		orphan := reread(secretOf(old))
		Expect(orphan.OwnerReferences).To(BeEmpty(), "the garbage collector has removed them")
		Expect(admin.Delete(ctx, orphan)).To(Succeed())
		plant(leftover)

		fresh := build.ApiKey(old.Namespace, old.Name)
		create(fresh)
		settle(c, fresh)
		expectIssued(fresh)
		Expect(fresh.Status.Hash).NotTo(Equal(old.Status.Hash))
	})

	It("as a stalled operator that still sees a key which was replaced, deletes nothing of its successor", func() {
		key := build.ApiKey(namespace(), "replaced")
		create(key)
		stale := key.DeepCopy()
		Expect(admin.Delete(ctx, key)).To(Succeed())
		successor := build.ApiKey(stale.Namespace, stale.Name)
		create(successor)
		settle(controllers(options()), successor)

		stalled := controllers(options())
		stalled.Issuing.Client = frozen{Client: stalled.Issuing.Client, view: stale}
		_, err := stalled.Pass(ctx, stale)
		Expect(err).NotTo(HaveOccurred(), "it is not an error that the key was replaced")
		expectIssued(successor)

		// With a digest that was committed long ago, the operator takes another branch.
		stale.Status.Hash = "sha256:" + strings.Repeat("0", 64)
		_, err = stalled.Pass(ctx, stale)
		Expect(err).NotTo(HaveOccurred())
		expectIssued(successor)
	})

	It("tells the user what the API server refuses, and issues the key once it doesn't", func() {
		c := controllers(options())
		ns := namespace()
		quota := quota(ns, 0)
		key := build.ApiKey(ns, "refused")
		create(key)
		_, err := c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred(), "the condition tells the user")
		ready := meta.FindStatusCondition(reread(key).Status.Conditions, v1alpha1.ConditionReady)
		Expect(ready.Reason).To(BeEquivalentTo(v1alpha1.ReasonDeliveryRefused))
		Expect(ready.Message).To(ContainSubstring("exceeded quota"))
		Expect(key.Status.Hash).To(BeEmpty(), "the committed token reached nobody")
		Expect(key.Status.SecretName).To(BeEmpty())

		Expect(admin.Delete(ctx, quota)).To(Succeed())
		delivers(c, key)
		expectIssued(key)
	})
})
