package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

const workers = 16

var _ = Describe("A fleet of keys", Ordered, func() {
	start := func(o harness.Options, lease string) *harness.Manager {
		GinkgoHelper()
		m, err := harness.StartManager(o, workers, lease)
		Expect(err).NotTo(HaveOccurred())
		return m
	}
	// createKeys creates n keys concurrently, as users do.
	createKeys := func(ns string, n int) {
		GinkgoHelper()
		var group sync.WaitGroup
		var failed atomic.Value
		next := make(chan int)
		for range 8 {
			group.Go(func() {
				for i := range next {
					if err := admin.Create(ctx, build.ApiKey(ns, fmt.Sprintf("key-%d", i))); err != nil {
						failed.Store(err)
					}
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		group.Wait()
		Expect(failed.Load()).To(BeNil())
	}
	ready := func(ns string) int {
		GinkgoHelper()
		keys := &v1alpha1.ApiKeyList{}
		Expect(admin.List(ctx, keys, client.InNamespace(ns))).To(Succeed())
		n := 0
		for i := range keys.Items {
			if reason(&keys.Items[i]) == v1alpha1.ReasonIssued {
				n++
			}
		}
		return n
	}
	// expectOneTokenEach checks that a namespace has n keys and n token Secrets that belong together.
	expectOneTokenEach := func(ns string, n int) {
		GinkgoHelper()
		keys, secrets := &v1alpha1.ApiKeyList{}, &corev1.SecretList{}
		Expect(admin.List(ctx, keys, client.InNamespace(ns))).To(Succeed())
		Expect(admin.List(ctx, secrets, client.InNamespace(ns), client.MatchingFields{"type": v1alpha1.SecretType})).To(Succeed())
		Expect(keys.Items).To(HaveLen(n))
		Expect(len(secrets.Items)).To(Equal(n), "one Secret per key")
		hashes := map[string]bool{}
		for i := range keys.Items {
			expectIssued(&keys.Items[i])
			hashes[keys.Items[i].Status.Hash] = true
		}
		Expect(len(hashes)).To(Equal(n), "one token per key")
	}

	It("is issued with three writes a key, no read, and no list or watch of Secrets", func() {
		const n = 50
		ns := namespace()
		network := &harness.Network{}
		o := options()
		o.Network = network
		m := start(o, "")
		createKeys(ns, n)
		Eventually(ready).WithArguments(ns).Should(Equal(n))
		Expect(m.Stop()).To(Succeed())

		counts := map[string]int{}
		for _, r := range network.Requests() {
			// This manager also sees the keys of other specs.
			if r.Resource != "events" && (r.Namespace == ns || r.Namespace == "") {
				counts[r.Method+" "+r.Resource]++
				Expect(r.Method == http.MethodGet && r.Name != "").To(BeFalse(), "a single object was read: %+v", r)
			}
		}
		Expect(counts).To(HaveKeyWithValue("PATCH apikeys/status", 2*n))
		Expect(counts).To(HaveKeyWithValue("POST secrets", n))
		// A busy API server may end a watch, or answer that it can't begin one yet.
		for _, watched := range []string{"apikeys", "apiroles", "apikeypolicies", "namespaces"} {
			Expect(counts).To(HaveKeyWithValue("GET "+watched, BeNumerically("<", n/4)), "listed and watched, however many keys there are")
		}
		Expect(counts).To(HaveLen(6), "no Secret is read, listed or watched")
		expectOneTokenEach(ns, n)
	})

	It("causes no write when an operator restarts", func() {
		// The first operator finishes what other specs have left.
		var network *harness.Network
		for range 2 {
			network = &harness.Network{}
			o := options()
			o.Network = network
			m := start(o, "")
			ns := namespace()
			createKeys(ns, 1)
			Eventually(ready).WithArguments(ns).Should(Equal(1))
			Expect(m.Stop()).To(Succeed())
		}
		writes := 0
		for _, r := range network.Requests() {
			if r.Writes() {
				writes++
			}
		}
		Expect(writes).To(Equal(3), "only for the one new key")
	})

	It("has one token a key where two operators are at work at once", func() {
		const n = 200
		ns := namespace()
		first, second := start(options(), ""), start(options(), "")
		createKeys(ns, n)
		Eventually(ready).WithArguments(ns).Should(Equal(n))
		Expect(first.Stop()).To(Succeed())
		Expect(second.Stop()).To(Succeed())
		expectOneTokenEach(ns, n)
	})

	It("has one token per key when the leader changes meanwhile", func() {
		const n = 200
		ns := namespace()
		first, second := start(options(), harness.Lease), start(options(), harness.Lease)
		Eventually(func() bool { return elected(first) || elected(second) }).Should(BeTrue())
		leader, follower := first, second
		if elected(second) {
			leader, follower = second, first
		}
		createKeys(ns, n/2)
		Eventually(ready).WithArguments(ns).Should(BeNumerically(">", 0))
		done := make(chan error, 1)
		go func() { done <- leader.Stop() }()
		for i := n / 2; i < n; i++ {
			create(build.ApiKey(ns, fmt.Sprintf("key-%d", i)))
		}
		Expect(<-done).To(Succeed())
		Eventually(ready).WithArguments(ns).Should(Equal(n))
		Expect(elected(follower)).To(BeTrue())
		Expect(follower.Stop()).To(Succeed())
		expectOneTokenEach(ns, n)
	})

	It("becomes Ready although the API server fails and conflicts at random", func() {
		const n = 500
		ns := namespace()
		random := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 2))
		var mu sync.Mutex
		var faults atomic.Int64
		o := options()
		o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if !r.Writes() && r.Resource != "secrets" {
				return harness.None
			}
			mu.Lock()
			defer mu.Unlock()
			if random.IntN(5) != 0 { // a fifth of the requests fail, in one of four ways
				return harness.None
			}
			faults.Add(1)
			return harness.LostRequest + harness.Fault(random.IntN(4))
		}}
		m := start(o, "")
		createKeys(ns, n)
		Eventually(ready, 3*time.Minute).WithArguments(ns).Should(Equal(n))
		Expect(m.Stop()).To(Succeed())
		Expect(faults.Load()).To(BeNumerically(">", n/4))
		expectOneTokenEach(ns, n)
	})

	It("goes with its namespace while no operator runs", func() {
		ns := namespace()
		m := start(options(), "")
		createKeys(ns, 5)
		Eventually(ready).WithArguments(ns).Should(Equal(5))
		Expect(m.Stop()).To(Succeed())

		// The operator sets no finalizers that would hold up the namespace's deletion.
		Expect(admin.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})).To(Succeed())
		Eventually(func() bool { return exists(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}) }).Should(BeFalse())
	})
})

func elected(m *harness.Manager) bool {
	select {
	case <-m.Elected():
		return true
	default:
		return false
	}
}
