package integration

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// crash returns a network on which the operator crashes at its nth write: before the write reaches the server (LostRequest), or before the
// answer arrives (LostAnswer). All later requests are lost. The returned bool is true once the crash has happened.
func crash(n int, how harness.Fault) (*harness.Network, *bool) {
	writes, dead := 0, false
	return &harness.Network{Fault: func(r harness.Request) harness.Fault {
		switch {
		case dead:
			return harness.LostRequest
		case !r.Writes():
			return harness.None
		}
		if writes++; writes == n {
			dead = true
			return how
		}
		return harness.None
	}}, &dead
}

// scenario is what an operator does when it crashes.
type scenario struct {
	name string
	// prepare creates the key, and objects that are in its way.
	prepare func(ns string) *v1alpha1.ApiKey
	// step, if not zero, is by how much the clock advances after the key was issued. The crash comes after that.
	step time.Duration
	// then, if set, changes the key after it was issued. The crash comes after that.
	then func(*v1alpha1.ApiKey)
	// end checks the final state, which must be the same whichever operator reached it.
	end func(*v1alpha1.ApiKey)
	// writes is the least number of writes in the scenario. It makes sure that the loop below doesn't end too early.
	writes int
}

var _ = Describe("A crash before or after any write", func() {
	plain := func(options ...build.Option) func(string) *v1alpha1.ApiKey {
		return func(ns string) *v1alpha1.ApiKey {
			key := build.ApiKey(ns, "crashed", options...)
			create(key)
			return key
		}
	}
	gone := func(key *v1alpha1.ApiKey) {
		Expect(exists(secretOf(key))).To(BeFalse(), "the Secret is deleted")
		Expect(key.Status.SecretDeletedAt).NotTo(BeNil())
	}
	scenarios := []scenario{
		{name: "issuing a key", prepare: plain(), end: expectIssued, writes: 3},
		{name: "replacing a planted Secret", prepare: func(ns string) *v1alpha1.ApiKey {
			key := plain()(ns)
			plant(build.TokenSecret(key, token.Mint("ak").Reveal()))
			return key
		}, end: expectIssued, writes: 6},
		{name: "replacing an older key's Secret", prepare: func(ns string) *v1alpha1.ApiKey {
			old := build.ApiKey(ns, "crashed")
			old.UID = "00000000-0000-0000-0000-000000000000"
			secret := build.TokenSecret(old, token.Mint("ak").Reveal())
			plant(secret) // the garbage collector may delete it before the operator does
			return plain()(ns)
		}, end: expectIssued, writes: 3},
		{name: "expiring a key", prepare: plain(build.After("1h")), step: time.Hour, writes: 2,
			end: func(key *v1alpha1.ApiKey) {
				Expect(reason(key)).To(Equal(v1alpha1.ReasonExpired))
				gone(key)
			}},
		{name: "deleting the Secret after revealFor", step: time.Minute, writes: 2,
			prepare: plain(build.Secret(v1alpha1.ApiKeySecret{RevealFor: "1m"})),
			end: func(key *v1alpha1.ApiKey) {
				Expect(reason(key)).To(Equal(v1alpha1.ReasonIssued))
				gone(key)
			}},
		{name: "rotating a key on request", prepare: plain(), then: requestRotation, end: expectRotated, writes: 3},
		{name: "rotating a key by schedule", prepare: plain(build.Rotation(v1alpha1.ApiKeyRotation{Every: "2h", Overlap: "1h"})),
			step: 2 * time.Hour, end: expectRotated, writes: 3},
		{name: "rotating a key whose Secret was taken", prepare: plain(), writes: 3, end: expectRotated,
			then: func(key *v1alpha1.ApiKey) {
				Expect(admin.Delete(ctx, secretOf(key))).To(Succeed())
				requestRotation(key)
			}},
		{name: "rotating a suspended key without an overlap", prepare: plain(), writes: 3,
			then: func(key *v1alpha1.ApiKey) {
				annotate(key, v1alpha1.AnnotationRotate, "leaked;overlap=0s")
				Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":true}}`)))).To(Succeed())
			},
			end: func(key *v1alpha1.ApiKey) {
				expectNewToken(key)
				Expect(reason(key)).To(Equal(v1alpha1.ReasonSuspended))
				Expect(key.RetiringToken()).To(BeNil())
			}},
	}

	for _, scenario := range scenarios {
		for how, when := range map[harness.Fault]string{harness.LostRequest: "before", harness.LostAnswer: "after"} {
			It(fmt.Sprintf("while %s leads to the same end (%s the write)", scenario.name, when), func() {
				for n := 1; ; n++ {
					clock := fakeClock()
					o := options()
					o.Clock = clock
					key := scenario.prepare(namespace())
					if scenario.step != 0 || scenario.then != nil {
						settle(controllers(o), key)
						clock.Step(scenario.step)
					}
					if scenario.then != nil {
						scenario.then(key)
					}

					network, dead := crash(n, how)
					dying := o
					dying.Network = network
					c := controllers(dying)
					for range 10 { // enough to finish, or to crash
						_, _ = c.Pass(ctx, key)
					}
					next := controllers(o)
					for range 5 {
						_, err := next.Pass(ctx, key)
						Expect(err).NotTo(HaveOccurred())
					}
					scenario.end(reread(key))
					if !*dead {
						Expect(n).To(BeNumerically(">", scenario.writes), "every write must have crashed once")
						return
					}
				}
			})
		}
	}

	It("never leaves a token that was not committed before its Secret existed", func() {
		// Compare every Secret of this key with the digest in its status.
		key := build.ApiKey(namespace(), "ordered")
		create(key)
		for n := 1; n <= 3; n++ {
			network, _ := crash(n, harness.LostAnswer)
			o := options()
			o.Network = network
			_, _ = controllers(o).Pass(ctx, key)
			if secret := secretOf(key); exists(secret) {
				Expect(digestOf(secret, key)).To(Equal(reread(key).Status.Hash))
			}
		}
		settle(controllers(options()), key)
		expectIssued(key)
	})
})

var _ = Describe("The network between operator and API server", func() {
	It("may lose any single answer of an issue, and nothing is doubled", func() {
		ns := namespace()
		for n := 1; n <= 3; n++ {
			lost := 0
			o := options()
			o.Network = &harness.Network{Fault: func(r harness.Request) harness.Fault {
				if r.Writes() {
					if lost++; lost == n {
						return harness.LostAnswer
					}
				}
				return harness.None
			}}
			c := controllers(o)
			key := build.ApiKey(ns, fmt.Sprintf("lossy-%d", n))
			create(key)
			Eventually(func(g Gomega) {
				_, err := c.Pass(ctx, key)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonIssued))
			}).Should(Succeed())
			expectIssued(key)
		}
		secrets := &corev1.SecretList{}
		Expect(admin.List(ctx, secrets, inNamespace(ns))).To(Succeed())
		Expect(secrets.Items).To(HaveLen(3))
		for i := range secrets.Items {
			Expect(metav1.GetControllerOf(&secrets.Items[i])).NotTo(BeNil())
		}
	})
})
