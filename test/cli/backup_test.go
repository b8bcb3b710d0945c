package cli

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/backup"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// rotateUntil rotates a key while no operator runs. The controllers lose the answer to the given write (commit, deliver, confirm) and all that
// follows, as if the operator was killed.
func rotateUntil(key *v1alpha1.ApiKey, write int, witness *harness.Witness, request string, at time.Time) {
	GinkgoHelper()
	if request != "" {
		patch := `{"metadata":{"annotations":{"` + v1alpha1.AnnotationRotate + `":"` + request + `"}}}`
		Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	}
	writes := 0
	network := &harness.Network{Fault: func(r harness.Request) harness.Fault {
		if r.Writes() {
			writes++
		}
		switch {
		case writes < write:
			return harness.None
		case writes == write && r.Writes():
			return harness.LostAnswer
		default:
			return harness.LostRequest
		}
	}}
	config, err := plane.As(ctx, controlplane.Namespace, controlplane.ServiceAccount)
	Expect(err).NotTo(HaveOccurred())
	controllers, err := harness.NewControllers(harness.Options{
		Config: config, Witness: witness, Network: network, Clock: clocktesting.NewFakePassiveClock(at), MinRotationEvery: time.Hour,
	})
	Expect(err).NotTo(HaveOccurred())
	_, _ = controllers.Pass(ctx, key) // it fails
	Expect(writes).To(BeNumerically(">=", write))
	Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
}

// tokenIn returns the token in the Secret of a key.
func tokenIn(key *v1alpha1.ApiKey) string {
	GinkgoHelper()
	found := secret(key.Namespace, key.SecretName())
	Expect(admin.Get(ctx, client.ObjectKeyFromObject(found), found)).To(Succeed())
	text := string(found.Data[key.SecretKey()])
	log.Remember(text)
	return text
}

// digestsOf follows a namespace and returns which digests each of its keys has had since then.
func digestsOf(ns string) func(key *v1alpha1.ApiKey) []string {
	GinkgoHelper()
	stream, err := harness.Watch(ctx, plane.Admin, &v1alpha1.ApiKeyList{}, client.InNamespace(ns))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(stream.Stop)
	var mu sync.Mutex
	seen := map[string]map[string]bool{}
	go func() {
		for event := range stream.ResultChan() {
			key, isKey := event.Object.(*v1alpha1.ApiKey)
			if !isKey || event.Type == watch.Deleted {
				continue
			}
			mu.Lock()
			if seen[key.Name] == nil {
				seen[key.Name] = map[string]bool{}
			}
			digests := []string{key.Status.Hash}
			if pending := key.PendingToken(); pending != nil {
				digests = append(digests, pending.Hash)
			}
			if retiring := key.RetiringToken(); retiring != nil {
				digests = append(digests, retiring.Hash)
			}
			for _, digest := range digests {
				if digest != "" {
					seen[key.Name][digest] = true
				}
			}
			mu.Unlock()
		}
	}()
	return func(key *v1alpha1.ApiKey) (digests []string) {
		mu.Lock()
		defer mu.Unlock()
		for digest := range seen[key.Name] {
			digests = append(digests, digest)
		}
		return digests
	}
}

// startVerifier starts a verifier until the end of the spec, and returns what it answers to a token.
func startVerifier() func(text string) int {
	GinkgoHelper()
	at, err := controlplane.FreeVerifierAddresses()
	Expect(err).NotTo(HaveOccurred())
	verifier, err := plane.StartVerifier(ctx, log, at, "--drain-delay=0s")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(verifier.Stop)
	Expect(verifier.WaitHTTP(ctx, verifier.Probes+"/readyz")).To(Succeed())
	return func(text string) int {
		GinkgoHelper()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, verifier.HTTP+"/auth?role="+role, nil)
		Expect(err).NotTo(HaveOccurred())
		request.Header.Set("Authorization", "Bearer "+text)
		response, err := http.DefaultClient.Do(request)
		Expect(err).NotTo(HaveOccurred())
		Expect(response.Body.Close()).To(Succeed())
		return response.StatusCode
	}
}

var _ = Describe("A restore", func() {
	It("gives no token to a key that is created again with other roles while it runs", func() {
		ns := namespace()
		key := issue(ns, "shopper")
		withoutOperator()
		saved := *key.DeepCopy()
		again := func(roles ...string) {
			GinkgoHelper()
			created := build.ApiKey(ns, "shopper")
			Expect(admin.Delete(ctx, created)).To(Succeed())
			created.ResourceVersion, created.Spec = "", *saved.Spec.DeepCopy()
			created.Spec.Roles = roles
			Expect(admin.Create(ctx, created)).To(Succeed())
		}
		again(saved.Spec.Roles...) // without a status, as an interrupted restore leaves it
		restore := &backup.Restore{
			Client: admin, Keys: []v1alpha1.ApiKey{saved}, Confirm: func(string) error { return nil },
			Say: func(format string, _ ...any) {
				if strings.HasPrefix(format, "Restoring") {
					again("org.permission.everything")
				}
			},
		}
		_, err := restore.Run(ctx)
		Expect(err).To(MatchError(ContainSubstring(ns + "/shopper was created again during the restore, with another spec")))
		Expect(get(ns, "shopper").Status.Hash).To(BeEmpty())
	})
})

var _ = Describe("A backup that was taken in the middle of rotations", func() {
	It("is restored with the current and the retiring tokens as they were, and each rotation that was under way ends once", func() {
		ns := namespace()
		witness, err := harness.NewWitness(ctx, plane.Admin)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(witness.Stop)
		var keys []*v1alpha1.ApiKey
		first := map[*v1alpha1.ApiKey]string{} // the token of the issue
		key := func(name string, options ...build.Option) *v1alpha1.ApiKey {
			GinkgoHelper()
			key := issue(ns, name, options...)
			keys, first[key] = append(keys, key), tokenIn(key)
			return key
		}
		overlapping, over := key("overlapping"), key("over")
		committed, delivered := key("committed"), key("delivered")
		scheduled := key("scheduled", build.Rotation(v1alpha1.ApiKeyRotation{Every: "1h"}))
		withoutOperator()

		now := time.Now()
		const commit, deliver, confirm = 1, 2, 3
		rotateUntil(overlapping, confirm, witness, "1;overlap=1h", now)
		rotateUntil(over, confirm, witness, "1;overlap=1s", now)
		rotateUntil(committed, commit, witness, "1;overlap=1h", now)
		rotateUntil(delivered, deliver, witness, "1;overlap=1h", now)
		rotateUntil(scheduled, commit, witness, "", now.Add(time.Hour))
		second := map[*v1alpha1.ApiKey]string{}
		for _, key := range []*v1alpha1.ApiKey{overlapping, over, delivered} {
			second[key] = tokenIn(key)
			Expect(second[key] != first[key]).To(BeTrue(), key.Name)
		}
		for _, key := range []*v1alpha1.ApiKey{committed, delivered, scheduled} {
			Expect(key.PendingToken()).NotTo(BeNil(), key.Name)
		}

		file := filepath.Join(GinkgoT().TempDir(), "backup.json")
		root.must("backup", file)
		for _, key := range keys {
			Expect(admin.Delete(ctx, key.DeepCopy())).To(Succeed())
			Eventually(exists).WithArguments(secret(ns, key.SecretName())).Should(BeFalse(), "the garbage collector deletes it")
		}
		Eventually(time.Now).Should(BeTemporally(">", over.RetiringToken().RetiresAt.Time))
		digests := digestsOf(ns)
		root.must("restore", file, "--yes")

		answer := startVerifier()
		for _, key := range keys {
			restored := get(ns, key.Name)
			Expect(restored.Status.Hash).To(Equal(key.Status.Hash))
			Expect(restored.Status.Rotation).To(Equal(key.Status.Rotation), "with retiresAt, and all requests that were handled")
			if key != over {
				Expect(answer(first[key])).To(Equal(http.StatusOK), key.Name)
			}
		}
		Expect(answer(second[overlapping])).To(Equal(http.StatusOK))
		Expect(answer(second[over])).To(Equal(http.StatusOK))
		Expect(answer(first[over])).To(Equal(http.StatusUnauthorized), "its overlap has passed")
		Expect(answer(second[delivered])).To(Equal(http.StatusOK), "a pending token")

		startOperator()
		DeferCleanup(operator.Stop)
		for _, key := range []*v1alpha1.ApiKey{committed, delivered} {
			var now *v1alpha1.ApiKey
			Eventually(func() int32 {
				now = get(ns, key.Name)
				return now.Status.Rotation.Count
			}).Should(BeEquivalentTo(1), "the Secret is gone, so the request is served by another token")
			Expect(now.PendingToken()).To(BeNil())
			Expect(now.RetiringToken()).To(HaveField("Hash", key.Status.Hash))
			latest := tokenIn(now)
			Expect(digestOf(latest) == now.Status.Hash).To(BeTrue())
			Eventually(answer).WithArguments(latest).Should(Equal(http.StatusOK))
			Eventually(digests).WithArguments(key).Should(ConsistOf(key.Status.Hash, key.PendingToken().Hash, now.Status.Hash), "one was minted")
		}
		Eventually(answer).WithArguments(second[delivered]).Should(Equal(http.StatusUnauthorized), "it was replaced")
		Eventually(func() *v1alpha1.ApiKeyRetiringToken { return get(ns, over.Name).RetiringToken() }).Should(BeNil())
		Eventually(func() string {
			if blocked := get(ns, scheduled.Name).Condition(v1alpha1.ConditionRotationBlocked); blocked != nil {
				return blocked.Reason
			}
			return ""
		}).Should(Equal("SecretTaken"), "nobody asked for this rotation, so no Secret is created")
		later := issue(ns, "later")
		Eventually(digests).WithArguments(later).ShouldNot(BeEmpty(), "the watch has caught up")
		for key, had := range map[*v1alpha1.ApiKey]int{overlapping: 2, over: 2, scheduled: 2} {
			Expect(digests(key)).To(HaveLen(had), "nothing was minted for key %s", key.Name)
			Expect(exists(secret(ns, key.SecretName()))).To(BeFalse(), key.Name)
			Expect(get(ns, key.Name).Status.Hash).To(Equal(key.Status.Hash))
		}
		for _, key := range []*v1alpha1.ApiKey{overlapping, committed, delivered, scheduled} {
			Expect(answer(first[key])).To(Equal(http.StatusOK), key.Name)
		}
		Expect(witness.Violations()).To(BeEmpty())
		Expect(witness.Leaks(ctx, admin)).To(BeEmpty())
	})
})
