package cli

import (
	"os"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// opaque returns a Secret that belongs to somebody else.
func opaque(ns, name string) *corev1.Secret {
	s := secret(ns, name)
	s.Data = map[string][]byte{"password": []byte("theirs")}
	return s
}

// isIssued reports whether a key exists and is issued.
func isIssued(ns, name string) bool {
	key := &v1alpha1.ApiKey{}
	return admin.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, key) == nil && key.IsIssued()
}

var _ = Describe("create", func() {
	It("prints the token alone on standard output, and takes its Secret away", func() {
		ns := namespace()
		text := root.create(ns, "shopper", "--display-name", "Order sync", "--cidr", "10.0.0.0/8")
		key := get(ns, "shopper")
		Expect(digestOf(text) == key.Status.Hash).To(BeTrue(), "it is the token of the key")
		Expect(key.Spec).To(Equal(v1alpha1.ApiKeySpec{
			DisplayName: "Order sync", Roles: []string{role}, CIDRs: []string{"10.0.0.0/8"},
			Expiry: v1alpha1.ApiKeyExpiry{After: "90d"}, Secret: &v1alpha1.ApiKeySecret{RevealFor: "15m"},
		}))
		Expect(key.ManagedFields[0].Manager).To(Equal("apikey-cli"))
		Expect(exists(secret(ns, "shopper"))).To(BeFalse())
	})

	It("leaves the Secret with --keep-secret, and needs no right on Secrets with -o name", func() {
		ns := namespace()
		root.create(ns, "printed", "--keep-secret", "--secret-name", "elsewhere", "--secret-key", "key")
		kept := secret(ns, "elsewhere")
		Expect(exists(kept)).To(BeTrue())
		Expect(kept.Data).To(HaveKey("key"))
		Expect(get(ns, "printed").Spec.Secret.RevealFor).To(BeEmpty())

		p := having(ns, []rbacv1.PolicyRule{on("apikeys", "create", "list", "watch")}, nil)
		r := p.run("create", "web-shop", "-n", ns, "--role", role, "--expires", "never", "--keep-secret", "-o", "name")
		expectCode(r, 0)
		Expect(r.out).To(Equal("apikey.apikey-operator.io/web-shop\n"))
		Expect(exists(secret(ns, "web-shop"))).To(BeTrue())
	})

	It("writes a manifest that Git can hold, without asking anybody", func() {
		ns := namespace()
		r := (&person{kubeconfig: "/dev/null"}).run("create", "web-shop", "-n", ns, "--role", role, "--role", "b.c", "--expires", "2027-01-31",
			"--keep-secret", "--dry-run=client", "-o", "yaml")
		expectCode(r, 0)
		Expect(r.out).To(Equal(`apiVersion: apikey-operator.io/v1alpha1
kind: ApiKey
metadata:
  name: web-shop
  namespace: ` + ns + `
spec:
  expiry:
    at: "2027-01-31T00:00:00Z"
  roles:
  - org.permission.order.read
  - b.c
`))
		out, err := plane.RunKubectl(ctx, r.out, "apply", "-f", "-")
		Expect(err).NotTo(HaveOccurred(), out)
		Eventually(func() bool { return get(ns, "web-shop").IsIssued() }).Should(BeTrue())
	})

	It("has the server check everything and creates nothing with --dry-run=server", func() {
		ns := namespace()
		Expect(root.must("create", "x", "-n", ns, "--role", role, "--expires", "30d", "--dry-run=server", "-o", "yaml")).
			To(ContainSubstring("after: 30d"))
		Expect(exists(build.ApiKey(ns, "x"))).To(BeFalse())
	})

	DescribeTable("refuses before it creates anything", func(args []string, message string) {
		ns := namespace()
		r := root.run(append([]string{"create", "-n", ns}, args...)...)
		expectCode(r, 2)
		Expect(r.out).To(BeEmpty())
		Expect(r.err).To(ContainSubstring(message))
		keys := &v1alpha1.ApiKeyList{}
		Expect(admin.List(ctx, keys, client.InNamespace(ns))).To(Succeed())
		Expect(keys.Items).To(BeEmpty())
	},
		Entry("no name", []string{"--role", role, "--expires", "90d"}, "the name of the key is missing: kubectl apikey create NAME"),
		Entry("no role", []string{"x", "--expires", "90d"}, "--role is missing"),
		Entry("no expiry", []string{"x", "--role", role}, "--expires is missing"),
		Entry("a wrong expiry", []string{"x", "--role", role, "--expires", "soon"}, `invalid expiry "soon"`),
		Entry("a day that does not exist", []string{"x", "--role", role, "--expires", "2027-02-30"}, `invalid expiry "2027-02-30"`),
		Entry("too long a life", []string{"x", "--role", role, "--expires", "3651d"}, `invalid expiry "3651d"`),
		Entry("an object in place of a token that nobody gets", []string{"x", "--role", role, "--expires", "90d", "-o", "json"}, "add --keep-secret"),
		Entry("an unknown format", []string{"x", "--role", role, "--expires", "90d", "-o", "xml"}, "--output=xml: must be json, yaml, name"),
		Entry("an unknown flag", []string{"x", "--roles", role}, "unknown flag: --roles"),
		Entry("an owner as a flag", []string{"x", "--role", role, "--owner", "team-shop"}, "--attribute owner=NAME"),
		Entry("a time in the past", []string{"x", "--role", role, "--expires", "2020-01-31"}, "--expires=2020-01-31 is in the past"),
		Entry("a time in the past in a dry run", []string{"x", "--role", role, "--expires", "2020-01-31", "--dry-run=client"}, "is in the past"),
		Entry("what the schema refuses", []string{"x", "--role", role, "--expires", "90d", "--cidr", "10.0.0.1/8"}, "10.0.0.1/8 has host bits; the network is 10.0.0.0/8"),
		Entry("a name that the API server refuses", []string{"X", "--role", role, "--expires", "90d"}, "metadata.name"),
		Entry("a token as the name", []string{token.Mint("ak").Reveal(), "--role", role, "--expires", "90d"}, "argument 4 looks like a token"),
	)

	It("does not echo an argument that looks like a token", func() {
		text := token.Mint("ak").Reveal()
		log.Remember(text)
		for _, args := range [][]string{{"find", text}, {text}, {"revoke", "--token=" + text}, {"__complete", "find", text}, {"find", text[:30]}} {
			r := root.run(args...)
			expectCode(r, 2)
			Expect(strings.Contains(r.out+r.err, text[3:15])).To(BeFalse(), "the argument is echoed")
		}
	})

	It("refuses a name that is taken, and leaves the key alone", func() {
		ns := namespace()
		root.create(ns, "taken")
		before := get(ns, "taken")
		r := root.run("create", "taken", "-n", ns, "--role", role, "--expires", "90d")
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring("choose another name, or revoke it first"))
		Expect(get(ns, "taken").UID).To(Equal(before.UID))
	})

	It("says which right is missing, and creates nothing", func() {
		ns := namespace()
		p := having(ns, []rbacv1.PolicyRule{on("apikeys", "list", "watch")}, nil)
		r := p.run("create", "x", "-n", ns, "--role", role, "--expires", "90d")
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring(`you may not create apikeys.apikey-operator.io in namespace "` + ns + `", get secrets "x" in namespace "` + ns + `"`))
		Expect(exists(build.ApiKey(ns, "x"))).To(BeFalse())
	})

	It("says what the key waits for when time runs out, and where its token will be", func() {
		ns := namespace()
		var r result
		var name string
		// On a busy machine, the operator may need longer to see the conflict.
		for timeout := 3 * time.Second; timeout < patience && !strings.Contains(r.err, "SecretConflict: "); timeout *= 2 {
			name = "conflict-" + timeout.String()
			Expect(admin.Create(ctx, opaque(ns, name))).To(Succeed())
			r = root.run("create", name, "-n", ns, "--role", role, "--expires", "90d", "--timeout", timeout.String())
			expectCode(r, 4)
			Expect(r.out).To(BeEmpty())
		}
		Expect(r.err).To(And(ContainSubstring("SecretConflict: "), ContainSubstring("kubectl apikey revoke "+name+" -n "+ns)))
	})

	It("loses nothing if standard output takes no token", func() {
		ns := namespace()
		command := root.command("create", "shopper", "-n", ns, "--role", role, "--expires", "90d")
		read, write, err := os.Pipe()
		Expect(err).NotTo(HaveOccurred())
		Expect(read.Close()).To(Succeed())
		var stderr strings.Builder
		command.Stdout, command.Stderr = write, &stderr
		Expect(command.Run()).To(MatchError(ContainSubstring("exit status 3")))
		Expect(write.Close()).To(Succeed())
		Expect(stderr.String()).To(And(ContainSubstring("standard output did not take the token"),
			ContainSubstring(`Its token is in Secret "shopper" for 15m`)))
		kept := secret(ns, "shopper")
		Expect(exists(kept)).To(BeTrue())
		Expect(digestOf(string(kept.Data["token"])) == get(ns, "shopper").Status.Hash).To(BeTrue())
	})

	It("says where the token is when it is interrupted", func() {
		ns := namespace()
		Expect(admin.Create(ctx, opaque(ns, "slow"))).To(Succeed())
		t := root.onTerminal("create", "slow", "-n", ns, "--role", role, "--expires", "90d")
		t.shows("SecretConflict")
		Expect(t.command.Process.Signal(syscall.SIGINT)).To(Succeed())
		r := t.end()
		expectCode(r, 130)
		Expect(r.out).To(And(ContainSubstring("interrupted"), ContainSubstring(`Once it is issued, its token is in Secret "slow" for 15m`)))
		Expect(admin.Delete(ctx, secret(ns, "slow"))).To(Succeed())
		Eventually(isIssued).WithArguments(ns, "slow").Should(BeTrue())
		Expect(exists(secret(ns, "slow"))).To(BeTrue())
	})

	It("shows progress on a terminal, and then the token", func() {
		ns := namespace()
		t := root.onTerminal("create", "shopper", "-n", ns, "--role", role, "--expires", "90d")
		r := t.end()
		expectCode(r, 0)
		found := tokens.FindAllString(r.out, -1)
		Expect(found).To(HaveLen(1))
		Expect(digestOf(found[0]) == get(ns, "shopper").Status.Hash).To(BeTrue())
		log.Remember(found[0])
		Expect(strings.Contains(r.out, "Waiting for the operator ...")).To(BeTrue())
		Expect(strings.Contains(r.out, "You can't see its token again:")).To(BeTrue())
	})

	It("logs no token at any level", func() {
		ns := namespace()
		text := root.create(ns, "verbose", "-v=10")
		expectCode(root.feed(text, "find", "-v=10"), 0)
		_, leaks := log.Leaks()
		Expect(leaks).To(BeZero())
	})
})
