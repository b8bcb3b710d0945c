package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/feed"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/reporting"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// verifierPod creates a pod of the verifier, which no node runs.
func verifierPod(name string) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: controlplane.Namespace, Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: controlplane.VerifierAccount,
			SecurityContext:    &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "verifier", Image: "apikey-verifier", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		},
	}
	create(pod)
	DeferCleanup(func() {
		Expect(client.IgnoreNotFound(admin.Delete(ctx, pod, client.GracePeriodSeconds(0)))).To(Succeed())
	})
	return pod
}

func asPod(pod *corev1.Pod) *rest.Config {
	GinkgoHelper()
	config, err := plane.AsPod(ctx, pod)
	Expect(err).NotTo(HaveOccurred())
	return config
}

func clientOf(config *rest.Config) client.Client {
	GinkgoHelper()
	c, err := client.New(config, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return c
}

// reporter is the part of a verifier that a spec about usage needs: it loads keys, decides and reports.
type reporter struct {
	checker *serve.Protocol
	keys    *index.Index
	die     func() // ends it without a last report
}

// startReporter starts a reporter that reports each 50 ms, until the end of the spec.
func startReporter(config *rest.Config, precision time.Duration) *reporter {
	GinkgoHelper()
	started := time.Now()
	keys := index.New(started, index.Options{})
	loader, err := feed.NewLoader(config, keys, feed.Options{Logger: witness.Logger()})
	Expect(err).NotTo(HaveOccurred())
	meter := usage.NewMeter(started)
	r, err := reporting.New(config, keys, meter, reporting.Options{
		Precision: precision, Interval: 50 * time.Millisecond, Logger: witness.Logger(), Metrics: prometheus.NewRegistry(),
	})
	Expect(err).NotTo(HaveOccurred())
	running, stop := context.WithCancel(ctx)
	DeferCleanup(stop)
	go loader.Run(running)
	go r.Run(running)
	checker := serve.NewChecker(serve.Options{Keys: keys, Observers: []serve.Observer{serve.NewUsage(meter)}})
	Eventually(checker.Ready).Should(BeTrue())
	return &reporter{checker: checker.Protocol("spec"), keys: keys, die: stop}
}

// knows reports whether the reporter has loaded a key.
func (r *reporter) knows(key *v1alpha1.ApiKey) bool {
	GinkgoHelper()
	digest, err := token.ParseDigest(key.Status.Hash)
	Expect(err).NotTo(HaveOccurred())
	found, _ := r.keys.Find(digest, time.Now())
	return found != nil
}

// use uses a key once it is known.
func (r *reporter) use(key *v1alpha1.ApiKey) {
	GinkgoHelper()
	r.useToken(reread(secretOf(key)).Data[key.SecretKey()])
}

func (r *reporter) useToken(text []byte) {
	GinkgoHelper()
	credential := verify.Reader{Prefixes: []string{token.DefaultPrefix}}.Token(string(text))
	Eventually(func() verify.Result { return r.checker.Check(&verify.Request{Credential: credential}, "").Result }).Should(Equal(verify.Allowed))
}

// recording returns options for a manager that records use.
func recording(precision time.Duration, writes float64) harness.Options {
	o := options()
	o.UsagePrecision, o.UsageWrites = precision, writes
	return o
}

// issued creates keys, which a manager must be running to issue, and returns them with their status.
func issued(ns string, names ...string) []*v1alpha1.ApiKey {
	GinkgoHelper()
	keys := make([]*v1alpha1.ApiKey, len(names))
	for i, name := range names {
		keys[i] = build.ApiKey(ns, name)
		create(keys[i])
	}
	for _, key := range keys {
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonIssued))
	}
	return keys
}

func lastUsedAt(key *v1alpha1.ApiKey) func() *metav1.Time {
	return func() *metav1.Time { return reread(key.DeepCopy()).Status.LastUsedAt }
}

// ageOf reports a use of the key that was age seconds ago.
func ageOf(key *v1alpha1.ApiKey, age int64) v1alpha1.TokenUse {
	return v1alpha1.TokenUse{UID: string(key.UID), Digest: key.Status.Hash, Age: ptr.To(age)}
}

func usageReport(ns, name, report string, uses ...v1alpha1.TokenUse) *v1alpha1.ApiKeyUsage {
	return &v1alpha1.ApiKeyUsage{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Report: report, Uses: uses}
}

// isWrite reports whether a request may record a use. Issuing sends such requests, too, until the key is issued.
func isWrite(r harness.Request) bool {
	return r.Method == http.MethodPatch && r.Resource == "apikeys/status"
}

var _ = Describe("The last use of a key", Label("releases"), func() {
	It("is recorded, once in each span of the precision, and changes nothing else", func() {
		network := &harness.Network{}
		o := recording(time.Hour, 100)
		o.Network = network
		running(o)
		key := issued(namespace(), "used")[0]
		verifier := startReporter(asPod(verifierPod("records")), time.Hour)
		before := reread(key.DeepCopy())
		verifier.use(key)
		used := time.Now()
		Eventually(lastUsedAt(key)).ShouldNot(BeNil())
		after := reread(key.DeepCopy())
		Expect(after.Status.LastUsedAt.Time).To(And(BeTemporally(">=", used.Add(-2*time.Second)), BeTemporally("<=", time.Now())))
		after.Status.LastUsedAt = nil
		Expect(after.Status).To(Equal(before.Status))
		Expect(after.Generation).To(Equal(before.Generation))

		writes := func() int {
			return len(slices.DeleteFunc(network.Requests(), func(r harness.Request) bool { return !isWrite(r) || r.Name != key.Name || r.Namespace != key.Namespace }))
		}
		count := writes()
		report := usageReport(controlplane.Namespace, "records", "")
		version := reread(report).ResourceVersion
		for range 20 {
			verifier.use(key)
		}
		Consistently(writes, "1500ms").Should(Equal(count), "an hour has not passed")
		Expect(reread(report).ResourceVersion).To(Equal(version), "nothing is new")
	})

	It("moves on once the recorded one is older than the precision, and survives a restart of the verifier and of the operator", func() {
		stop := running(recording(time.Second, 100))
		key := issued(namespace(), "moves")[0]
		pod := verifierPod("moves")
		verifier := startReporter(asPod(pod), time.Second)
		verifier.use(key)
		Eventually(lastUsedAt(key)).ShouldNot(BeNil())
		first := reread(key.DeepCopy()).Status.LastUsedAt.Time
		later := func() time.Time {
			verifier.use(key)
			return reread(key.DeepCopy()).Status.LastUsedAt.Time
		}
		Eventually(later).Should(BeTemporally(">", first))
		verifier.die()
		stop()
		running(recording(time.Second, 100))
		verifier = startReporter(asPod(pod), time.Second)
		second := reread(key.DeepCopy()).Status.LastUsedAt.Time
		Eventually(later).Should(BeTemporally(">", second))
	})

	It("is recorded although the verifier dies after its report, and its report is deleted with its pod before it is merged", func() {
		ns := namespace()
		blocked := make(chan struct{})
		o := recording(time.Hour, 100)
		o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			select {
			case <-blocked:
			default:
				if isWrite(r) && r.Namespace == ns && r.Name == "dies" {
					return harness.TooManyRequests
				}
			}
			return harness.None
		}}
		c := controllers(options())
		key := build.ApiKey(ns, "dies")
		create(key)
		settle(c, key)
		running(o)
		pod := verifierPod("dies")
		verifier := startReporter(asPod(pod), time.Hour)
		verifier.use(key)
		report := usageReport(controlplane.Namespace, pod.Name, "")
		Eventually(func() []v1alpha1.TokenUse { return reread(report).Uses }).Should(HaveLen(1))
		Expect(report.HasPod()).To(BeTrue())
		Eventually(func() bool {
			return slices.ContainsFunc(o.Network.Requests(), func(r harness.Request) bool { return isWrite(r) && r.Name == key.Name })
		}).Should(BeTrue(), "the operator has read it")
		verifier.die()
		Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		Eventually(func() bool { return exists(report) }).Should(BeFalse(), "the garbage collector deletes it")
		Expect(reread(key).Status.LastUsedAt).To(BeNil())
		close(blocked)
		Eventually(lastUsedAt(key)).ShouldNot(BeNil())
	})

	It("is recorded once although the operator dies while it writes, and reports arrive late and twice", func() {
		ns := namespace()
		key := build.ApiKey(ns, "merged")
		create(key)
		settle(controllers(options()), key)
		self := clientOf(asPod(verifierPod("merged")))
		report := usageReport(controlplane.Namespace, "merged", "first", ageOf(key, 0))
		Expect(self.Create(ctx, report)).To(Succeed())

		lost := make(chan struct{})
		var once sync.Once
		o := recording(time.Hour, 100)
		o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if isWrite(r) && r.Namespace == ns {
				once.Do(func() { close(lost) })
				return harness.LostAnswer
			}
			return harness.None
		}}
		stop := running(o)
		Eventually(lost).Should(BeClosed())
		Eventually(lastUsedAt(key)).ShouldNot(BeNil(), "the write arrives, and its answer does not")
		stop()
		recorded := reread(key.DeepCopy())

		again := recording(time.Hour, 100)
		again.Network = &harness.Network{}
		running(again)
		for i, age := range []int64{0, 3600, 30} { // the same, an older one, and one that came late
			patch := fmt.Sprintf(`{"report":"again-%d","uses":[{"uid":%q,"digest":%q,"age":%d}]}`, i, key.UID, key.Status.Hash, age)
			Expect(self.Patch(ctx, report, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
		}
		marker := issued(ns, "marker")[0]
		other := clientOf(asPod(verifierPod("marks")))
		Expect(other.Create(ctx, usageReport(controlplane.Namespace, "marks", "x", ageOf(marker, 0)))).To(Succeed())
		Eventually(lastUsedAt(marker)).ShouldNot(BeNil())
		Expect(reread(key.DeepCopy()).ResourceVersion).To(Equal(recorded.ResourceVersion))
	})

	It("is never in the future or before issue, and never moves back, whatever a report claims", func() {
		running(recording(time.Second, 100))
		ns := namespace()
		keys := issued(ns, "early", "future", "back")
		early, future, back := keys[0], keys[1], keys[2]
		liar := clientOf(asPod(verifierPod("liar")))
		report := usageReport(controlplane.Namespace, "liar", "lie", ageOf(early, 4_000_000_000), ageOf(back, 0))
		report.Uses = append(report.Uses, v1alpha1.TokenUse{UID: "unknown", Digest: early.Status.Hash, Age: ptr.To[int64](0)})
		Expect(liar.Create(ctx, report)).To(Succeed())
		Eventually(lastUsedAt(early)).ShouldNot(BeNil())
		Eventually(lastUsedAt(back)).ShouldNot(BeNil())
		Expect(reread(early).Status.LastUsedAt.Time).To(BeTemporally("==", early.Status.IssuedAt.Time))
		Expect(reread(back).Status.LastUsedAt.Time).To(BeTemporally("<=", time.Now()))

		// A client may set the times of managed fields, as long as it doesn't change the fields.
		tomorrow := metav1.NewTime(time.Now().Add(24 * time.Hour))
		patch := func(body map[string]any) {
			GinkgoHelper()
			text, err := json.Marshal(body)
			Expect(err).NotTo(HaveOccurred())
			Expect(liar.Patch(ctx, report, client.RawPatch(types.MergePatchType, text))).To(Succeed())
		}
		patch(map[string]any{"report": "forged", "uses": []v1alpha1.TokenUse{ageOf(future, 0), ageOf(back, 3600*48)}})
		Eventually(lastUsedAt(future)).ShouldNot(BeNil())
		seen := reread(future).Status.LastUsedAt.Time
		Eventually(time.Now).Should(BeTemporally(">", seen.Add(2*time.Second)), "the precision has passed")
		patch(map[string]any{"metadata": map[string]any{"managedFields": append(report.ManagedFields, metav1.ManagedFieldsEntry{
			Manager: "forger", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "apikey-operator.io/v1alpha1", Time: &tomorrow,
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:report":{}}`),
		})}})
		Expect(reread(report).ReportedAt()).To(BeTemporally("~", tomorrow.Time, time.Second), "the forgery works")
		Eventually(func() time.Time { return reread(future).Status.LastUsedAt.Time }).Should(BeTemporally(">", seen), "a lie about use")
		Expect(future.Status.LastUsedAt.Time).To(BeTemporally("<=", time.Now()))

		moved := func(key *v1alpha1.ApiKey, to time.Time) error {
			patch := fmt.Sprintf(`{"status":{"lastUsedAt":%q}}`, to.UTC().Format(time.RFC3339))
			return self.Status().Patch(ctx, key.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
		}
		Expect(moved(back, back.Status.LastUsedAt.Add(-time.Second))).To(MatchError(ContainSubstring("only moves forward")))
		Expect(moved(back, back.Status.IssuedAt.Add(-time.Hour))).To(MatchError(ContainSubstring("is not before status.issuedAt")))
		Expect(self.Status().Patch(ctx, back.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"lastUsedAt":null}}`)))).
			To(MatchError(ContainSubstring("only moves forward")))
	})

	It("needs no answer of the issuing controller: its writes end in no conflict, and it reconciles nothing", func() {
		network := &harness.Network{}
		o := recording(time.Second, 100)
		o.Network = network
		running(o)
		key := issued(namespace(), "quiet")[0]
		verifier := startReporter(asPod(verifierPod("quiet")), time.Second)
		for range 3 {
			before := reread(key.DeepCopy()).Status.LastUsedAt
			Eventually(func() bool {
				verifier.use(key)
				now := reread(key.DeepCopy()).Status.LastUsedAt
				return !now.Equal(before)
			}).Should(BeTrue())
		}
		Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":true}}`)))).To(Succeed())
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonSuspended))
		Expect(key.Status.LastUsedAt).NotTo(BeNil(), "other writes keep it")
	})

	It("is not recorded by a report of another namespace, except for the keys there", func() {
		running(recording(time.Hour, 100))
		ns := namespace()
		own := issued(ns, "own")[0]
		other := issued(namespace(), "other")[0]
		writer := rbacRule("create", "patch")
		guard := serviceAccount(ns, "guard", false, clusterRole(ns+"-guard", writer))
		Eventually(func() error {
			return guard.Create(ctx, usageReport(ns, "guard", "x", ageOf(other, 0), ageOf(own, 0)))
		}).Should(Succeed())
		Eventually(lastUsedAt(own)).ShouldNot(BeNil())
		Expect(reread(other).Status.LastUsedAt).To(BeNil())
	})

	It("is recorded by an operator for some namespaces, for these alone", func() {
		mine, others := namespace(), namespace()
		o := recording(time.Hour, 100)
		o.Namespaces = []string{mine}
		running(o)
		c := controllers(options())
		foreign := build.ApiKey(others, "foreign")
		create(foreign)
		settle(c, foreign)
		key := issued(mine, "mine")[0]
		verifier := startReporter(asPod(verifierPod("some")), time.Hour)
		verifier.use(foreign)
		verifier.use(key)
		Eventually(lastUsedAt(key)).ShouldNot(BeNil())
		Expect(reread(foreign).Status.LastUsedAt).To(BeNil())
		o.Namespaces = []string{others}
		running(o)
		Eventually(lastUsedAt(foreign)).ShouldNot(BeNil())
	})

	It("is no longer reported an hour after the last report of a verifier without a pod: the operator deletes it", func() {
		ns := namespace()
		guard := serviceAccount(ns, "guard", false, clusterRole(ns+"-guard", rbacRule("create", "patch")))
		report := usageReport(ns, "guard", "x")
		Eventually(func() error { return guard.Create(ctx, report) }).Should(Succeed())
		withPod := usageReport(controlplane.Namespace, "kept", "x")
		pod := verifierPod("kept")
		withPod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}
		Expect(clientOf(asPod(pod)).Create(ctx, withPod)).To(Succeed())
		clock := fakeClock()
		o := recording(time.Hour, 100)
		o.Clock = clock
		stop := running(o)
		Consistently(func() bool { return exists(report) }, "500ms").Should(BeTrue())
		stop()
		clock.Step(time.Hour)
		running(o)
		Eventually(func() bool { return exists(report) }).Should(BeFalse())
		Expect(exists(withPod)).To(BeTrue(), "the garbage collector deletes it with its pod")
	})

	It("of a retiring token is recorded beside that of the key", func() {
		running(recording(time.Hour, 100))
		key := issued(namespace(), "rotated")[0]
		verifier := startReporter(asPod(verifierPod("rotated")), time.Hour)
		old := reread(secretOf(key)).Data[key.SecretKey()]
		verifier.useToken(old)
		Eventually(lastUsedAt(key)).ShouldNot(BeNil())
		Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"apikey-operator.io/rotate":"1;overlap=1h"}}}`)))).To(Succeed())
		Eventually(func() *v1alpha1.ApiKeyRetiringToken { return reread(key).RetiringToken() }).ShouldNot(BeNil())
		verifier.use(key)
		rotated := reread(key).Status.Rotation.RotatedAt.Time
		Eventually(time.Now).Should(BeTemporally(">", rotated.Add(time.Second)))
		verifier.useToken(old)
		Eventually(func() *metav1.Time { return reread(key).RetiringToken().LastUsedAt }).ShouldNot(BeNil())
		// It may be the use before the rotation, which was not recorded for this token. A later one follows within a minute.
		Expect(key.RetiringToken().LastUsedAt.Time).To(BeTemporally("<=", time.Now()))
		Expect(key.Status.LastUsedAt.Time).To(BeTemporally(">=", key.RetiringToken().LastUsedAt.Time))
	})
})
