package integration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/feed"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// stall is where the leader stops to work on a key, for good.
type stall struct {
	// write is the number of the write at which it stops: commit, deliver, confirm.
	write int
	// how is what becomes of that write: it is lost (LostRequest), its answer is lost (LostAnswer), or it arrives late (None).
	how harness.Fault
	// taken says that the user has deleted the Secret, so that the delivery creates one.
	taken bool
}

// String implements fmt.Stringer.
func (s stall) String() string {
	return fmt.Sprintf("%s of %s, Secret taken: %t", map[harness.Fault]string{
		harness.LostRequest: "loss", harness.LostAnswer: "lost answer", harness.None: "late arrival",
	}[s.how], []string{"", "commit", "delivery", "confirmation"}[s.write], s.taken)
}

// stalls is the network of a leader that stalls on each key, which has a namespace of its own.
type stalls struct {
	byNamespace map[string]stall
	resume      chan struct{} // lets late writes arrive

	mu          sync.Mutex
	writes      map[string]int
	stalled     map[string]bool
	dead, awake bool
}

// fault implements Network.Fault.
func (s *stalls) fault(r harness.Request) harness.Fault {
	s.mu.Lock()
	stall, known := s.byNamespace[r.Namespace]
	if s.awake && known && stall.how == harness.None {
		s.mu.Unlock()
		return harness.None
	}
	if s.dead || s.stalled[r.Namespace] {
		s.mu.Unlock()
		return harness.LostRequest
	}
	if known && r.Writes() {
		s.writes[r.Namespace]++
	}
	if !known || !r.Writes() || s.writes[r.Namespace] < stall.write {
		s.mu.Unlock()
		return harness.None
	}
	s.stalled[r.Namespace] = true
	s.mu.Unlock()
	if stall.how == harness.None {
		<-s.resume
	}
	return stall.how
}

func (s *stalls) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stalled)
}

func (s *stalls) die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

// wake lets the late writes arrive, and the leader go on with their keys: it was not dead, but stood still.
func (s *stalls) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awake = true
	close(s.resume)
}

// vigil asks a verifier about tokens, without a pause.
type vigil struct {
	mu       sync.Mutex
	tokens   map[string]string // text to key
	accepted map[string]bool
	refused  map[string]bool // keys of tokens that were refused after they had been accepted
	asked    int
}

// startVigil asks until the end of the spec.
func startVigil() *vigil {
	GinkgoHelper()
	config, err := plane.As(ctx, controlplane.Namespace, controlplane.VerifierAccount)
	Expect(err).NotTo(HaveOccurred())
	keys := index.New(time.Now(), index.Options{})
	loader, err := feed.NewLoader(config, keys, feed.Options{Logger: witness.Logger()})
	Expect(err).NotTo(HaveOccurred())
	checker := serve.NewChecker(serve.Options{Keys: keys})
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	DeferCleanup(func() { stop(); group.Wait() })
	group.Go(func() { loader.Run(running) })
	Eventually(checker.Ready).Should(BeTrue())
	v := &vigil{tokens: map[string]string{}, accepted: map[string]bool{}, refused: map[string]bool{}}
	protocol, reader := checker.Protocol("spec"), verify.Reader{Prefixes: []string{token.DefaultPrefix}}
	group.Go(func() {
		for running.Err() == nil {
			v.ask(func(text string) bool {
				return protocol.Check(&verify.Request{Credential: reader.Token(text)}, "").Allowed()
			})
			select { // leave some of the machine to others
			case <-time.After(time.Millisecond):
			case <-running.Done():
			}
		}
	})
	return v
}

func (v *vigil) ask(accepts func(text string) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for text, key := range v.tokens {
		v.asked++
		if accepts(text) {
			v.accepted[text] = true
		} else if v.accepted[text] {
			v.refused[key] = true
		}
	}
}

// learn adds the token in the Secret of a key, if there is one. It returns how many tokens of the key were found so far, and whether all are
// accepted.
func (v *vigil) learn(key *v1alpha1.ApiKey) (tokens int, accepted bool) {
	GinkgoHelper()
	secret := secretOf(key)
	found := exists(secret)
	v.mu.Lock()
	defer v.mu.Unlock()
	if found {
		v.tokens[string(secret.Data[key.SecretKey()])] = key.Namespace
	}
	accepted = true
	for text, owner := range v.tokens {
		if owner == key.Namespace {
			tokens++
			accepted = accepted && v.accepted[text]
		}
	}
	return tokens, accepted
}

func (v *vigil) result() (wronglyRefused []string, asked int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Keys(v.refused)), v.asked
}

var _ = Describe("The loss of the leader in the middle of a rotation", func() {
	It("between any two of its writes leaves it to the next leader, which ends it once; no token blinks", func() {
		const lease = harness.Lease
		var all []*v1alpha1.ApiKey
		network := &stalls{byNamespace: map[string]stall{}, resume: make(chan struct{}), writes: map[string]int{}, stalled: map[string]bool{}}
		vigil, first := startVigil(), map[string]string{}
		for write := 1; write <= 3; write++ {
			for _, how := range []harness.Fault{harness.LostRequest, harness.LostAnswer, harness.None} {
				for _, taken := range []bool{false, true} {
					key := build.ApiKey(namespace(), "handed-over")
					create(key)
					settle(controllers(options()), key)
					expectIssued(key)
					vigil.learn(key)
					Eventually(func() bool { _, accepted := vigil.learn(key); return accepted }).Should(BeTrue())
					if taken {
						Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
					}
					network.byNamespace[key.Namespace] = stall{write, how, taken}
					first[key.Namespace] = key.Status.Hash
					all = append(all, key)
				}
			}
		}

		o := options()
		o.Network = &harness.Network{Fault: network.fault}
		leader, err := harness.StartManager(o, len(all), lease)
		Expect(err).NotTo(HaveOccurred())
		lost := sync.OnceFunc(func() {
			network.wake()
			_ = leader.Stop() // it may say that it has lost the lease
		})
		DeferCleanup(lost)
		Eventually(leader.Elected()).Should(BeClosed())
		next, err := harness.StartManager(options(), workers, lease)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(next.Stop)
		for _, key := range all {
			requestRotation(key)
		}
		look := func() {
			for _, key := range all {
				vigil.learn(key)
			}
		}
		Eventually(func() int { look(); return network.count() }).Should(Equal(len(all)), "the leader has stopped to work on each key")
		Expect(next.Elected()).NotTo(BeClosed())

		network.die()
		// A dead leader's lease runs out after some time. It need not be waited for.
		Expect(admin.Delete(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: controlplane.Namespace, Name: lease}})).To(Succeed())
		for _, key := range all {
			Eventually(func() int32 {
				look()
				if reread(key).Status.Rotation == nil {
					return 0
				}
				return key.Status.Rotation.Count
			}).Should(BeEquivalentTo(1), "%s", network.byNamespace[key.Namespace])
		}
		lost() // what was late arrives now
		for _, key := range all {
			where := network.byNamespace[key.Namespace].String()
			By("after the " + where)
			expectRotated(key)
			Expect(key.RetiringToken().Hash).To(Equal(first[key.Namespace]))
			Eventually(func() bool { _, accepted := vigil.learn(key); return accepted }).Should(BeTrue())
			tokens, _ := vigil.learn(key)
			Expect(tokens).To(Equal(2), "the token of the issue, and that of one rotation")
		}
		wronglyRefused, asked := vigil.result()
		Expect(wronglyRefused).To(BeEmpty())
		AddReportEntry("questions", asked)
	})
})
