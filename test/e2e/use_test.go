//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/e2e/tally"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

func inUse() {
	BeforeAll(func() {
		if !inPlace { // these specs run alone
			install(kustomize)
			quickstart()
		}
		var err error
		witness, err = harness.NewWitness(ctx, cluster.Admin)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { witness.Stop() })
		// As docs/verifier.md says, so that keys with CIDRs work behind this nginx.
		kubectl("-n", system, "patch", "deployment", "apikey-verifier", "--type=json", "--patch", fmt.Sprintf(
			`[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["--trusted-proxies=%s/32"]}]`,
			pods(shop, "orders")[0].Status.PodIP))
	})

	var expired *corev1.Pod // uses a key that expires soon
	It("allows valid tokens, and nothing else", func() {
		expiring := apiKey("expiring", build.After("60s"))
		expired = workload("expired", expiring.SecretName(), calls)
		other := workload("other-role", apiKey("other-role", build.Roles("orders.write")).SecretName(), call)
		revoked := apiKey("revoked")
		deleted := workload("deleted", revoked.SecretName(), calls)

		By("a pod that is created before its key waits for the Secret")
		early := workload("early", "early", call)
		Eventually(func(g Gomega) {
			list := &corev1.EventList{}
			g.Expect(admin.List(ctx, list, client.InNamespace(shop))).To(Succeed())
			g.Expect(slices.ContainsFunc(list.Items, func(e corev1.Event) bool {
				return e.InvolvedObject.Name == "early" && e.Reason == "FailedMount"
			})).To(BeTrue())
		}).Should(Succeed())
		apiKey("early")

		verifierRolled() // from here on, all of them trust the client addresses that nginx sends
		inside := workload("inside", apiKey("inside", build.CIDRs("10.89.1.0/24")).SecretName(), call)
		outside := workload("outside", apiKey("outside", build.CIDRs("10.89.2.0/24")).SecretName(), call)

		Expect(answers(inside)).To(Equal("200"))
		Expect(answers(outside)).To(Equal("403"), "the address is outside the key's CIDRs")
		Expect(answers(other)).To(Equal("403"), "the key lacks the role")
		Expect(answers(early)).To(Equal("200"))

		Eventually(codes).WithArguments(deleted).Should(ContainElement("200"))
		Expect(admin.Delete(ctx, revoked)).To(Succeed())
		Eventually(codes).WithArguments(deleted).Should(ContainElement("401"))

		Expect(slices.Compact(codes(deleted))).To(Equal([]string{"200", "401"}))
		report.add("calls by pods: allowed, with another role,", "200, 403,")
		report.add("  inside and outside its CIDRs, deleted", "200 and 403, 401")
	})

	It("lists what expires soon, in a job of the sample", func() {
		issued(apiKey("soon", build.After("10d"), build.Attribute("owner", "team-shop")))
		issued(apiKey("later", build.After("20d")))
		kubectl("apply", "-k", overlay("expiring-keys", "config/samples/expiring-keys"))
		DeferCleanup(func() { kubectl("delete", "-k", overlay("expiring-keys", "config/samples/expiring-keys")) })
		kubectl("-n", system, "create", "job", "--from=cronjob/expiring-keys", "expiring-keys-now")
		DeferCleanup(func() { kubectl("-n", system, "delete", "job", "expiring-keys-now") })
		kubectl("-n", system, "wait", "--for=condition=Complete", "job/expiring-keys-now", "--timeout="+patience.String())
		text := kubectl("-n", system, "logs", "job/expiring-keys-now")
		Expect(text).To(And(HavePrefix("NAMESPACE "), MatchRegexp(`(?m)^shop +soon +Issued .* team-shop `), Not(ContainSubstring("later"))))
		report.add("keys that expire soon, listed by a job", "%d line", strings.Count(text, "\n")-1)
	})

	It("brings a running pod the token of a new key that reuses the name of its Secret", func() { renew() })

	Context("disturbed", Ordered, func() {
		var calling *corev1.Pod
		var before tally.Tally
		BeforeAll(func() { calling = startCaller() })
		BeforeEach(func() {
			var err error
			before, err = counts(calling)
			Expect(err).NotTo(HaveOccurred())
		})
		// judged checks the answers that the caller got during a spec.
		judged := func(what string) {
			GinkgoHelper()
			now, err := counts(calling)
			Expect(err).NotTo(HaveOccurred())
			during := now.Since(before)
			report.add("  requests meanwhile", "%d sent, %d wrong answers, %d unanswered", during.Sent, during.Wrong, during.Unanswered)
			Expect(during.Sent).To(BeNumerically(">", 100))
			Expect(during.Wrong).To(BeZero(), what)
			Expect(during.Unanswered).To(BeZero(), what)
		}

		It("answers correctly while the verifier's pods are rolled", func() {
			start := time.Now()
			kubectl("-n", system, "rollout", "restart", "deployment/apikey-verifier")
			verifierRolled()
			report.add("verifier pods rolled", "in %.1f s", time.Since(start).Seconds())
			judged("while the verifier was rolled")
		})

		It("lets a pod follow the rotations of its key, and refuses it nothing", func() {
			for n := range rotations {
				rotateUnder(calling, fmt.Sprintf("request-%d", n))
			}
			judged("while the keys were rotated")
		})

		It("issues every key once although the operator is killed meanwhile", func() {
			const fleet = 200
			keys := make([]*v1alpha1.ApiKey, fleet)
			var all sync.WaitGroup
			all.Go(func() {
				defer GinkgoRecover()
				for i := range keys {
					keys[i] = apiKey(fmt.Sprintf("fleet-%03d", i))
				}
			})
			Eventually(issuedOf).WithArguments("fleet-").Should(BeNumerically(">", fleet/10))
			first := issuedOf("fleet-")
			killed := time.Now()
			kill(pods(system, "apikey-operator")[0], "apikey-operator")
			all.Wait()
			Eventually(issuedOf).WithArguments("fleet-").Should(BeNumerically(">", first))
			Eventually(issuedOf).WithArguments("fleet-").Should(Equal(fleet))
			took := time.Since(killed)

			lost := 0
			for _, key := range keys {
				Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
				text, err := tokenOf(key)
				if err != nil || !matches(text, key) {
					lost++
					continue
				}
				Expect(verdict(text)).To(Equal(200), key.Name)
			}
			secrets := &corev1.SecretList{}
			Expect(admin.List(ctx, secrets, client.InNamespace(shop), client.MatchingFields{"type": v1alpha1.SecretType})).To(Succeed())
			orphans := 0
			list := &v1alpha1.ApiKeyList{}
			Expect(admin.List(ctx, list, client.InNamespace(shop))).To(Succeed())
			for _, secret := range secrets.Items {
				if !slices.ContainsFunc(list.Items, func(key v1alpha1.ApiKey) bool {
					return key.SecretName() == secret.Name && matches(string(secret.Data[key.SecretKey()]), &key)
				}) {
					orphans++
				}
			}
			report.add("operator killed with some of 200 keys issued", "%d issued; all 200 after %.1f s; %d keys lost, %d Secrets that match no digest",
				first, took.Seconds(), lost, orphans)
			Expect(lost).To(BeZero())
			Expect(orphans).To(BeZero())
			judged("while keys were issued")
		})

		It("keeps issuing when the leader is lost", func() {
			kubectl("-n", system, "scale", "deployment/apikey-operator", "--replicas=2")
			available(system, "apikey-operator")
			leader := leaderPod()
			lost := time.Now()
			kill(leader, "apikey-operator")
			issued(apiKey("after-the-leader"))
			report.add("leader of two operators killed", "%.1f s until the next key was issued", time.Since(lost).Seconds())
			judged("while the leader was lost")
		})

		It("answers correctly while the API server is away, and when it is back", func() {
			key := apiKey("while-away")
			issued(key)
			text, err := tokenOf(key)
			Expect(err).NotTo(HaveOccurred())
			Expect(verdict(text)).To(Equal(200))
			known := &v1alpha1.ApiKeyList{}
			Expect(admin.List(ctx, known)).To(Succeed())

			stopped := time.Now()
			Expect(cluster.KillAPIServer(ctx)).To(Succeed())
			away, err := counts(calling)
			Expect(err).NotTo(HaveOccurred())
			Eventually(func(g Gomega) {
				now, err := counts(calling)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(now.Since(away).Sent).To(BeNumerically(">", 500))
			}).Should(Succeed())
			meanwhile, err := counts(calling)
			Expect(err).NotTo(HaveOccurred())
			Expect(cluster.StartAPIServer()).To(Succeed())
			back := time.Now()

			Expect(admin.Delete(ctx, key)).To(Succeed())
			gone := time.Now()
			Eventually(verdict).WithArguments(text).Should(Equal(401))
			refused := time.Since(gone)
			issued(apiKey("after-the-restart"))
			report.add("API server away", "for %.1f s, with %d requests answered", back.Sub(stopped).Seconds(), meanwhile.Since(away).Sent)
			report.add("  a key deleted at its return", "is refused after %.2f s", refused.Seconds())
			report.add("  a key created at its return", "is issued after %.1f s", time.Since(gone).Seconds())
			lost := 0
			for _, was := range known.Items {
				now := &v1alpha1.ApiKey{}
				if was.Name == key.Name {
					continue
				}
				if err := admin.Get(ctx, client.ObjectKeyFromObject(&was), now); err != nil || now.Status.Hash != was.Status.Hash {
					lost++
				}
			}
			report.add("  keys lost", "%d of %d", lost, len(known.Items)-1)
			Expect(lost).To(BeZero())
			judged("while the API server was away, and after")
		})
	})

	It("keeps refusing an expired token, whatever goes wrong", func() {
		Expect(expired).NotTo(BeNil(), "this spec needs the first one")
		Eventually(codes).WithArguments(expired).Should(ContainElement("401"))
		Expect(slices.Compact(codes(expired))).To(Equal([]string{"200", "401"}))
	})

	It("reveals no token", func() {
		files := 0
		Expect(filepath.WalkDir(logs, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			_, err = witness.Write(text)
			return err
		})).To(Succeed())
		leaks, err := witness.Leaks(ctx, admin)
		Expect(err).NotTo(HaveOccurred())
		Expect(leaks).To(BeEmpty())
		Expect(witness.Violations()).To(BeEmpty())
		Expect(witness.Tokens()).To(BeNumerically(">", 200))
		report.add("tokens searched for in logs, statuses and events", "%d, in %d files: none found", witness.Tokens(), files)
	})
}

// issuedOf counts the issued keys in the shop whose names start with prefix.
func issuedOf(prefix string) int {
	GinkgoHelper()
	list := &v1alpha1.ApiKeyList{}
	Expect(admin.List(ctx, list, client.InNamespace(shop))).To(Succeed())
	n := 0
	for _, key := range list.Items {
		if key.Status.IssuedAt != nil && len(key.Name) > len(prefix) && key.Name[:len(prefix)] == prefix {
			n++
		}
	}
	return n
}

// leaderPod waits until an operator's pod holds the lease, and returns the pod.
func leaderPod() (leader corev1.Pod) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		leases := &coordinationv1.LeaseList{}
		g.Expect(admin.List(ctx, leases, client.InNamespace(system))).To(Succeed())
		g.Expect(leases.Items).To(HaveLen(1))
		holder := *leases.Items[0].Spec.HolderIdentity
		g.Expect(time.Since(leases.Items[0].Spec.RenewTime.Time)).To(BeNumerically("<", 10*time.Second))
		for _, pod := range pods(system, "apikey-operator") {
			if len(holder) > len(pod.Name) && holder[:len(pod.Name)] == pod.Name {
				leader = pod
			}
		}
		g.Expect(leader.Name).NotTo(BeEmpty())
	}).Should(Succeed())
	return leader
}
