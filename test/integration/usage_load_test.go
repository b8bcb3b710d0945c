package integration

import (
	"fmt"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// writesOf records when a use is written to which key.
type writesOf struct {
	mu    sync.Mutex
	times []time.Time
	keys  map[string]int
}

func (w *writesOf) note(r harness.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.times = append(w.times, time.Now())
	w.keys[r.Namespace+"/"+r.Name]++
}

func (w *writesOf) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.times)
}

var _ = Describe("A fleet of keys in use", func() {
	It("costs never more writes than the budget allows, one for each key, and no namespace waits for another", func() {
		const busyKeys, quietKeys, writes = 90, 5, 10
		busy, quiet := namespace(), namespace()
		stop := running(options())
		names := func(n int) (all []string) {
			for i := range n {
				all = append(all, fmt.Sprintf("key-%02d", i))
			}
			return all
		}
		keys := issued(busy, names(busyKeys)...)
		quietly := issued(quiet, names(quietKeys)...)
		stop()

		seen := &writesOf{keys: map[string]int{}}
		o := recording(time.Hour, writes)
		o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
			if isWrite(r) && (r.Namespace == busy || r.Namespace == quiet) {
				seen.note(r)
			}
			return harness.None
		}}
		running(o)
		one, two := startReporter(asPod(verifierPod("fleet-one")), time.Hour), startReporter(asPod(verifierPod("fleet-two")), time.Hour)
		tokens := make([][]byte, busyKeys)
		for i, key := range keys {
			tokens[i] = reread(secretOf(key)).Data[key.SecretKey()]
		}
		started := time.Now()
		for _, text := range tokens {
			one.useToken(text)
			two.useToken(text)
		}
		for _, key := range quietly {
			two.use(key)
		}
		recorded := func(keys []*v1alpha1.ApiKey) func() int {
			return func() int {
				n := 0
				for _, key := range keys {
					if reread(key.DeepCopy()).Status.LastUsedAt != nil {
						n++
					}
				}
				return n
			}
		}
		Eventually(recorded(quietly)).Should(Equal(quietKeys))
		Expect(recorded(keys)()).To(BeNumerically("<", busyKeys), "the busy namespace still waits")
		Eventually(recorded(keys)).Should(Equal(busyKeys))
		for _, key := range append(keys, quietly...) {
			// Reporter and operator count in whole seconds, each in its own way.
			Expect(reread(key).Status.LastUsedAt.Time).To(BeTemporally(">=", started.Add(-2*time.Second)))
			Expect(key.Status.LastUsedAt.Time).To(BeTemporally("<=", time.Now()))
		}
		Consistently(seen.count, "1s").Should(BeNumerically("<", busyKeys+quietKeys+5), "nothing is written again")
		const seconds = 5
		for i := range seen.times[seconds*writes:] {
			// The writes of five seconds and one more take five seconds, except for what the first took to be sent on a busy machine.
			Expect(seen.times[i+seconds*writes].Sub(seen.times[i])).To(BeNumerically(">", (seconds-1)*time.Second), "from write %d", i)
		}
		again := 0
		for _, n := range seen.keys {
			again += n - 1
		}
		Expect(again).To(BeNumerically("<", 5), "conflicts with a cache that is behind")
	})
})
