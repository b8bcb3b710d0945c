package cli

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

var _ = Describe("rotate", func() {
	It("prints the new token once where the Secret was taken away, and the old one works on", func() {
		ns := namespace()
		old := root.create(ns, "shopper")
		r := root.run("rotate", "shopper", "-n", ns, "--yes", "--overlap", "1h")
		expectCode(r, 0)
		text := strings.TrimSuffix(r.out, "\n")
		_, err := token.Parse(text)
		Expect(err).NotTo(HaveOccurred(), "standard output must hold a token and nothing else")
		log.Remember(text)
		Expect(text != old).To(BeTrue())
		Expect(r.err).To(ContainSubstring("works on until"))
		Expect(exists(secret(ns, "shopper"))).To(BeFalse())
		key := get(ns, "shopper")
		Expect(digestOf(text) == key.Status.Hash).To(BeTrue())
		Expect(time.Until(key.RetiringToken().RetiresAt.Time)).To(BeNumerically("~", time.Hour, time.Minute))

		// Both tokens are of this key.
		for kind, text := range map[string]string{"current": text, "retiring": old} {
			r := root.feed(text, "find")
			expectCode(r, 0)
			row := cells(r.out)[1]
			Expect(row[:2]).To(Equal([]string{ns, "shopper"}))
			Expect(row[len(row)-1]).To(Equal(kind))
			expectCode(root.feed(text, "check", "--role", role), 0)
		}
		Expect(root.must("describe", "shopper", "-n", ns)).To(And(ContainSubstring("Old token:"), ContainSubstring(key.RetiringToken().Hash)))
		Expect(root.must("list", "-n", ns, "-o", "wide")).To(MatchRegexp(`ROTATED[^\n]*\n.* ago `))

		// A key has at most two tokens. Nothing is requested that would wait for an hour.
		r = root.run("rotate", "shopper", "-n", ns, "--yes")
		expectCode(r, 2)
		Expect(r.err).To(And(ContainSubstring("nothing was changed"), ContainSubstring("--retire-old"), ContainSubstring("--now")))
		Expect(get(ns, "shopper").RotationRequest()).To(BeEmpty())

		Expect(root.must("rotate", "shopper", "-n", ns, "--retire-old", "--yes")).To(HaveSuffix("retired its old token\n"))

		// A further request within a minute of the last rotation waits.
		r = root.run("rotate", "shopper", "-n", ns, "--yes", "--timeout", "1s")
		expectCode(r, 4)
		Expect(r.err).To(ContainSubstring("kubectl apikey suspend shopper -n " + ns))
		r = root.feed(old, "check", "--role", role)
		expectCode(r, 1)
		Expect(r.out).To(HavePrefix("Unknown: "))
	})

	It("leaves the new token in the Secret that workloads mount", func() {
		ns := namespace()
		old := root.create(ns, "web-shop", "--keep-secret", "--rotate-every", "30d", "--rotate-overlap", "12h")
		Expect(*get(ns, "web-shop").Spec.Rotation).To(Equal(v1alpha1.ApiKeyRotation{Every: "30d", Overlap: "12h"}))
		Eventually(func() string { return root.must("describe", "web-shop", "-n", ns) }).Should(MatchRegexp(`Rotation: +every 30d; in \d+d`))
		r := root.run("rotate", "web-shop", "-n", ns, "--now", "--yes")
		expectCode(r, 0)
		Expect(r.out).To(Equal("apikey.apikey-operator.io/web-shop rotated\n"))
		Expect(r.err).To(And(ContainSubstring("The old token ends at once"), ContainSubstring("The old token is refused from now on.")))
		kept := secret(ns, "web-shop")
		Expect(exists(kept)).To(BeTrue())
		Expect(digestOf(string(kept.Data["token"])) == get(ns, "web-shop").Status.Hash).To(BeTrue())
		expectCode(root.feed(old, "find"), 1)
		Expect(root.must("rotate", "web-shop", "-n", ns, "--retire-old")).To(ContainSubstring("has no old token that still works"))
	})

	It("exits with an error where the new token can't be delivered, and offers to suspend the key", func() {
		ns := namespace()
		root.create(ns, "shopper")
		Expect(admin.Create(ctx, opaque(ns, "shopper"))).To(Succeed())
		before := get(ns, "shopper").Status.Hash
		r := root.run("rotate", "shopper", "-n", ns, "--yes")
		expectCode(r, 3)
		Expect(r.err).To(And(ContainSubstring("the rotation is blocked (SecretConflict)"), ContainSubstring("kubectl apikey suspend shopper -n "+ns)))
		Expect(get(ns, "shopper").Status.Hash).To(Equal(before))
	})

	It("needs no right on Secrets for a key that a workload uses, and asks for the rights that it needs", func() {
		ns := namespace()
		issue(ns, "web-shop")
		r := having(ns, []rbacv1.PolicyRule{on("apikeys", "get", "patch", "list", "watch")}, nil).run("rotate", "web-shop", "-n", ns, "--yes")
		expectCode(r, 0)
		Expect(r.err).To(ContainSubstring("which you may not read"))
		r = having(ns, []rbacv1.PolicyRule{on("apikeys", "get")}, nil).run("rotate", "web-shop", "-n", ns, "--yes")
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring("nothing was changed: you may not patch apikeys.apikey-operator.io"))
	})

	It("refuses what can't be rotated", func() {
		ns := namespace()
		Expect(admin.Create(ctx, opaque(ns, "pending"))).To(Succeed())
		Expect(admin.Create(ctx, build.ApiKey(ns, "pending"))).To(Succeed())
		for _, args := range [][]string{{"--now", "--overlap", "1h"}, {"--overlap", "31d"}, {"--overlap", "soon"}, {"--retire-old", "--now"}, {}} {
			expectCode(root.run(append([]string{"rotate", "pending", "-n", ns, "--yes"}, args...)...), 2)
		}
	})
})
