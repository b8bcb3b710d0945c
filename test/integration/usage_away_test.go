package integration

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// withoutAPIServer kills the API server, and starts it again when do returns.
func withoutAPIServer(do func()) {
	GinkgoHelper()
	Expect(plane.KillAPIServer(ctx)).To(Succeed())
	start := sync.OnceFunc(func() { Expect(plane.StartAPIServer()).To(Succeed()) })
	DeferCleanup(start) // also if do fails
	do()
	start()
}

// setBack follows a namespace, and returns the keys whose last use moved back since then.
func setBack(ns string) func() []string {
	GinkgoHelper()
	stream, err := harness.Watch(ctx, plane.Admin, &v1alpha1.ApiKeyList{}, client.InNamespace(ns))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(stream.Stop)
	var mu sync.Mutex
	var found []string
	go func() {
		latest := map[string]time.Time{}
		for event := range stream.ResultChan() {
			key, isKey := event.Object.(*v1alpha1.ApiKey)
			if !isKey {
				continue
			}
			at := time.Time{}
			if key.Status.LastUsedAt != nil {
				at = key.Status.LastUsedAt.Time
			}
			if at.Before(latest[key.Name]) || at.After(time.Now().Add(time.Second)) {
				mu.Lock()
				found = append(found, key.Name)
				mu.Unlock()
			}
			latest[key.Name] = at
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(found)
	}
}

// heap returns how much memory is in use, after a collection.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc) //nolint:gosec // far below the limit
}

var _ = Describe("Use while the API server is away", func() {
	// With AWAY=5m, it is away for five minutes.
	It("passes as always, and is recorded at its true time once it is back; times only move forward, and nothing grows", func() {
		const n = 60
		away, more := 6*time.Second, time.Duration(0)
		if text := os.Getenv("AWAY"); text != "" {
			var err error
			away, err = time.ParseDuration(text)
			Expect(err).NotTo(HaveOccurred())
			more = 5 * time.Minute // the longest backoff of a reporter
		}
		running(recording(time.Second, 1000))
		ns := namespace()
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("key-%02d", i)
		}
		keys := issued(ns, names...)
		reporters := []*reporter{
			startReporter(asPod(verifierPod("away-one")), time.Second), startReporter(asPod(verifierPod("away-two")), time.Second),
		}
		credentials := make([]verify.Credential, n)
		for i, key := range keys {
			text := reread(secretOf(key)).Data[key.SecretKey()]
			credentials[i] = verify.Reader{Prefixes: []string{token.DefaultPrefix}}.Token(string(text))
			for r, reporter := range reporters {
				if i%3 == r {
					reporter.useToken(text) // a third of the keys is not used yet
				} else {
					Eventually(reporter.knows).WithArguments(key).Should(BeTrue())
				}
			}
		}
		for i, key := range keys {
			if i%3 < len(reporters) {
				Eventually(lastUsedAt(key)).ShouldNot(BeNil())
			}
		}

		back := setBack(ns)
		used, asked := make([]time.Time, n), 0
		var ended time.Time
		var before, after int64
		var goroutines int
		withoutAPIServer(func() {
			began := time.Now()
			before, goroutines = heap(), runtime.NumGoroutine()
			for time.Since(began) < away {
				for i, credential := range credentials {
					result := reporters[i%2].checker.Check(&verify.Request{Credential: credential}, "").Result
					Expect(result).To(Equal(verify.Allowed))
					used[i] = time.Now()
					asked++
				}
				select { // leave some of the machine to others
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
				}
			}
			ended = time.Now()
			after = heap()
			Expect(runtime.NumGoroutine()).To(BeNumerically("<", goroutines+100))
			Expect(after-before).To(BeNumerically("<", 32<<20), "bytes that the heap grew by")
		})
		for i, key := range keys {
			Eventually(func(g Gomega) {
				at := lastUsedAt(key)()
				g.Expect(at).NotTo(BeNil())
				// Reporter and operator count in whole seconds, each in its own way. A report that takes long moves the time forward.
				g.Expect(at.Time).To(And(BeTemporally(">=", used[i].Add(-3*time.Second)), BeTemporally("<=", used[i].Add(3*time.Second+time.Since(ended)))))
			}, patience+more).Should(Succeed(), key.Name)
		}
		Expect(back()).To(BeEmpty(), "times that moved back, or lie in the future")
		AddReportEntry("questions", fmt.Sprintf("%d while the API server was away for %s; the heap grew by %d KiB", asked, away, (after-before)>>10))
	})
})
