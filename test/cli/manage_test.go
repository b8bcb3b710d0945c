package cli

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

var spaces = regexp.MustCompile(` +`)

// cells returns the lines of a table, each as its cells.
func cells(table string) (rows [][]string) {
	for line := range strings.Lines(table) {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

// issue creates a key as an administrator and waits until it is issued.
func issue(ns, name string, options ...build.Option) *v1alpha1.ApiKey {
	GinkgoHelper()
	key := build.ApiKey(ns, name, append([]build.Option{build.Roles(role)}, options...)...)
	Expect(admin.Create(ctx, key)).To(Succeed())
	Eventually(isIssued).WithArguments(ns, name).Should(BeTrue())
	return get(ns, name)
}

// in returns an expiry time from now.
func in(d time.Duration) build.Option { return build.At(time.Now().Add(d).UTC().Format(time.RFC3339)) }

var _ = Describe("list", func() {
	It("shows the keys of a namespace, or of all", func() {
		ns := namespace()
		Expect(root.run("list", "-n", ns)).To(Equal(result{err: fmt.Sprintf("No API keys found in namespace %q.\n", ns)}))
		issue(ns, "b", build.Never(), build.Roles("a.a", "b.b", "c.c", "d.d"))
		issue(ns, "a", in(50*time.Hour))
		Expect(admin.Create(ctx, build.ApiKey(ns, "pending", build.Secret(v1alpha1.ApiKeySecret{Name: "b"})))).To(Succeed())
		Eventually(func() v1alpha1.Reason { return get(ns, "pending").ReadyReason() }).Should(Equal(v1alpha1.ReasonSecretConflict))
		rows := cells(root.must("ls", "-n", ns))
		Expect(rows[0]).To(Equal([]string{"NAME", "STATUS", "EXPIRES", "LAST", "USED", "AGE", "OWNER", "ROLES"}))
		Expect(rows).To(HaveLen(4))
		Expect(rows[1][:3]).To(Equal([]string{"a", "Issued", "2d1h"}))
		Expect(rows[1][3:5]).To(Equal([]string{"not", "seen"}))
		Expect(rows[1][6:]).To(Equal([]string{"-", role}))
		Expect(rows[2][:3]).To(Equal([]string{"b", "Issued", "never"}))
		Expect(rows[2][6:]).To(Equal([]string{"-", "a.a,b.b,+2", "more"}))
		Expect(rows[3][:3]).To(Equal([]string{"pending", "SecretConflict", "89d"}))

		everywhere := root.must("list", "-A", "-o", "wide")
		Expect(everywhere).To(HavePrefix("NAMESPACE"))
		Expect(everywhere).To(ContainSubstring("a.a,b.b,c.c,d.d"))
	})

	It("filters and sorts", func() {
		ns := namespace()
		issue(ns, "late", in(100*time.Hour))
		issue(ns, "soon", in(10*time.Hour), build.Label("team", "shop"))
		issue(ns, "never", build.Never(), build.Roles("other"))
		names := func(args ...string) (names []string) {
			GinkgoHelper()
			for _, line := range cells(root.must(append([]string{"list", "-n", ns, "-o", "name"}, args...)...)) {
				names = append(names, strings.TrimPrefix(line[0], "apikey.apikey-operator.io/"))
			}
			return names
		}
		Expect(names()).To(Equal([]string{"late", "never", "soon"}))
		Expect(names("--sort", "expires")).To(Equal([]string{"soon", "late", "never"}))
		Expect(names("--expiring", "2d")).To(Equal([]string{"soon"}))
		Expect(names("--expiring", "5d", "--sort", "name")).To(Equal([]string{"late", "soon"}))
		Expect(names("-l", "team=shop")).To(Equal([]string{"soon"}))
		Expect(names("--role", "other")).To(Equal([]string{"never"}))
		Expect(root.run("list", "-n", ns, "--owner", "nobody").err).To(Equal(fmt.Sprintf("No matching API keys found in namespace %q.\n", ns)))
		for flag, message := range map[string]string{
			"--sort=color": "--sort=color: must be one of age, expires, name, owner, status", "--expiring=soon": "--expiring=soon: must be a duration", "-o=x": "--output=x",
		} {
			r := root.run("list", "-n", ns, flag)
			expectCode(r, 2)
			Expect(r.err).To(ContainSubstring(message))
		}
	})

	It("knows owners", func() {
		ns := namespace()
		root.create(ns, "shopper", "--attribute", "owner=team-shop", "--attribute", "plan=gold, or so")
		issue(ns, "other")
		Expect(get(ns, "shopper").Attributes()).To(Equal(map[string]string{"owner": "team-shop", "plan": "gold, or so"}))
		rows := cells(root.must("list", "-n", ns, "--owner", "team-shop"))
		Expect(rows).To(HaveLen(2))
		Expect(rows[1][6]).To(Equal("team-shop"))
		Expect(root.must("__complete", "list", "-n", ns, "--owner", "")).To(HavePrefix("team-shop\n"))
		for name, owner := range map[string]string{"a": "$(touch owned)", "b": "`id`", "c": "a b", "d": "team-shop;id", "e": "-f"} {
			Expect(admin.Create(ctx, build.ApiKey(ns, name, build.Attribute("owner", v1alpha1.AttributeValue(owner))))).To(Succeed())
		}
		Expect(root.must("__complete", "list", "-n", ns, "--owner", "")).To(HavePrefix("team-shop\n:"), "the shell might expand the others")
		Expect(root.must("describe", "shopper", "-n", ns)).To(MatchRegexp(`Attributes: +owner=team-shop, plan=gold, or so\n`))
		Expect(root.run("revoke", "shopper", "-n", ns, "--yes").err).To(ContainSubstring("owner team-shop"))
		r := root.run("create", "x", "-n", ns, "--role", role, "--expires", "1d", "--attribute", "Owner=a")
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring("spec.attributes"))
	})

	It("prints a List that kubectl reads, in JSON and YAML", func() {
		ns := namespace()
		for _, empty := range []string{"json", "yaml"} {
			list := &v1alpha1.ApiKeyList{}
			Expect(yaml.Unmarshal([]byte(root.must("list", "-n", ns, "-o", empty)), list)).To(Succeed())
			Expect(list.Items).To(BeEmpty())
		}
		issue(ns, "one")
		issue(ns, "two", build.CIDRs("10.0.0.0/8"))
		for _, format := range []string{"json", "yaml"} {
			list := &v1alpha1.ApiKeyList{}
			text := root.must("list", "-n", ns, "-o", format)
			Expect(yaml.UnmarshalStrict([]byte(text), list)).To(Succeed())
			Expect(list.Items).To(HaveLen(2))
			Expect(list.Items[1].Spec.CIDRs).To(Equal([]string{"10.0.0.0/8"}))
			Expect(list.Items[1].Status.Hash).NotTo(BeEmpty())
			Expect(list.Items[1].Kind).To(Equal("ApiKey"))
			Expect(text).NotTo(ContainSubstring("managedFields"))
			if format == "json" {
				Expect(json.Valid([]byte(text))).To(BeTrue())
			}
			out, err := plane.RunKubectl(ctx, text, "get", "-f", "-")
			Expect(err).NotTo(HaveOccurred(), out)
		}
	})
})

var _ = Describe("describe", func() {
	It("says what a key may do in the words of the catalogue, from where, until when, and what happened", func() {
		ns := namespace()
		catalogue(build.ApiRole("org.user.write", "org.user.create"), build.ApiRole("org.user.create"))
		issue(ns, "shopper", build.Roles("org.user.write"), build.CIDRs("10.0.0.0/8"), in(1000*time.Hour))
		Eventually(func() string { return root.must("describe", "shopper", "-n", ns) }).Should(ContainSubstring("Normal  Issued"))
		text := spaces.ReplaceAllString(root.must("describe", "shopper", "-n", ns), " ")
		for _, want := range []string{
			"Name: shopper", "Networks: 10.0.0.0/8", "Status: Issued", "Expires: in 41d, at 20", "sha256:",
			"org.user.write What org.user.write allows.", "includes org.user.create", "Normal Issued",
		} {
			Expect(text).To(ContainSubstring(want))
		}
	})

	It("works for who may only get ApiKeys, and says what it leaves out", func() {
		ns := namespace()
		issue(ns, "shopper")
		p := having(ns, []rbacv1.PolicyRule{on("apikeys", "get")}, nil)
		text := p.must("describe", "shopper", "-n", ns)
		Expect(text).To(And(ContainSubstring("You may not list apiroles"), ContainSubstring("You may not list events")))
	})

	It("fails for a key that does not exist", func() {
		r := root.run("describe", "nobody", "-n", namespace())
		expectCode(r, 3)
		Expect(r.err).To(ContainSubstring(`apikeys.apikey-operator.io "nobody" not found`))
		Expect(r.err).NotTo(ContainSubstring("install"))
	})

	It("shows no control characters that somebody put into a name", func() {
		ns := namespace()
		key := build.ApiKey(ns, "evil")
		key.Spec.DisplayName = "a\x1b[2Jb\u202ec"
		Expect(admin.Create(ctx, key)).To(Succeed())
		for _, args := range [][]string{{"describe", "evil"}, {"list", "-o", "wide"}} {
			text := root.must(append(args, "-n", ns)...)
			Expect(text).To(ContainSubstring("a?[2Jb?c"))
			Expect(text).NotTo(ContainSubstring("\x1b"))
		}
	})
})

// catalogue creates roles for the time of a spec.
func catalogue(roles ...*v1alpha1.ApiRole) {
	GinkgoHelper()
	// A key may have only roles of the catalogue while it has any.
	for _, r := range append(roles, build.ApiRole(role), build.ApiRole("org.permission.customer.read")) {
		Expect(admin.Create(ctx, r)).To(Succeed())
		DeferCleanup(func() { Expect(admin.Delete(ctx, r)).To(Succeed()) })
	}
}

var _ = Describe("find", func() {
	It("finds the key of a token, from a file and from standard input, and sends the token nowhere", func() {
		ns := namespace()
		text := root.create(ns, "shopper")
		for _, r := range []result{
			root.run("find", file(text+"\n")), root.feed(text, "find"), root.feed(text, "find", "-"), root.feed(text, "find", "-n", ns),
		} {
			expectCode(r, 0)
			Expect(cells(r.out)[1][:3]).To(Equal([]string{ns, "shopper", "Issued"}))
		}
		Expect(root.feed(text, "find", "-o", "name").out).To(Equal("apikey.apikey-operator.io/shopper\n"))
	})

	It("reads a token on a terminal without showing it", func() {
		ns := namespace()
		text := root.create(ns, "shopper")
		t := root.onTerminal("find")
		t.shows("Token (it is not shown): ")
		t.types(text + "\n")
		r := t.end()
		expectCode(r, 0)
		Expect(strings.Contains(r.out, text)).To(BeFalse())
		Expect(r.out).To(ContainSubstring("shopper"))
	})

	It("says no for a token of no key, and for one that was revoked", func() {
		ns := namespace()
		text := root.create(ns, "shopper")
		root.must("revoke", "shopper", "-n", ns, "--yes")
		for _, other := range []string{text, token.Mint("ak").Reveal()} {
			r := root.feed(other, "find")
			expectCode(r, 1)
			Expect(r.err).To(ContainSubstring("No ApiKey has this token"))
		}
	})

	It("refuses what is not a token, and does not show it", func() {
		text := token.Mint("ak").Reveal()
		for _, wrong := range []string{"", "hello", text[:len(text)-1] + "!", text + text} {
			r := root.feed(wrong, "find")
			expectCode(r, 2)
			Expect(r.err).To(And(ContainSubstring("this is not a token"), ContainSubstring("kubectl apikey scan --find FILE")))
			Expect(strings.Contains(r.err, "hello") || strings.Contains(r.err, text[3:10])).To(BeFalse())
		}
		r := root.run("find", "/no/such/file")
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring("no such file"))
	})

	It("searches one namespace for who may not list all, and says so", func() {
		ns, other := namespace(), namespace()
		text, foreign := root.create(ns, "mine"), root.create(other, "theirs")
		p := having(ns, []rbacv1.PolicyRule{on("apikeys", "list")}, nil)
		expectCode(p.feed(text, "find", "-n", ns), 0)
		r := p.feed(foreign, "find", "-n", ns)
		expectCode(r, 1)
		Expect(r.err).To(ContainSubstring(fmt.Sprintf("No ApiKey of namespace %q has this token", ns)))
	})
})

var _ = Describe("revoke", func() {
	It("says which keys are gone if it can't delete all", func() {
		ns := namespace()
		issue(ns, "a")
		b := issue(ns, "b")
		about := metav1.ObjectMeta{Name: ns + "-keep"}
		policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: about, Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Delete},
					Rule:       admissionv1.Rule{APIGroups: []string{v1alpha1.GroupVersion.Group}, APIVersions: []string{"*"}, Resources: []string{"apikeys"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: fmt.Sprintf("request.namespace != %q || request.name != 'b'", ns), Message: "b stays"}},
		}}
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: about, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: about.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		}}
		for _, object := range []client.Object{policy, binding} {
			Expect(admin.Create(ctx, object)).To(Succeed())
			DeferCleanup(func() error { return admin.Delete(ctx, object) })
		}
		Eventually(func() error { return admin.Delete(ctx, b.DeepCopy(), client.DryRunAll) }).Should(MatchError(ContainSubstring("b stays")))
		r := root.run("revoke", "a", "b", "-n", ns, "--yes")
		expectCode(r, 3)
		Expect(r.err).To(MatchRegexp("error: revoke " + ns + "/b: .*b stays. These were revoked before: " + ns + "/a\n"))
		Expect(exists(b)).To(BeTrue())
	})

	It("asks on a terminal, and does nothing unless the answer is yes", func() {
		ns := namespace()
		key := issue(ns, "shopper", build.Label("app.kubernetes.io/managed-by", "Helm"))
		t := root.onTerminal("revoke", "shopper", "-n", ns)
		t.shows("Revoke " + ns + "/shopper? [y/N]")
		t.types("\n")
		r := t.end()
		expectCode(r, 1)
		Expect(r.out).To(And(ContainSubstring("nothing was changed"), ContainSubstring("Helm manages it and will create it again"),
			ContainSubstring("Whoever uses its token is refused from now on")))
		Expect(exists(key)).To(BeTrue())

		t = root.onTerminal("revoke", "shopper", "-n", ns)
		t.shows("[y/N]")
		t.types("y\n")
		r = t.end()
		expectCode(r, 0)
		Expect(r.out).To(ContainSubstring("apikey.apikey-operator.io/shopper revoked"))
		Expect(exists(key)).To(BeFalse())
	})

	It("refuses without a terminal and without --yes", func() {
		ns := namespace()
		key := issue(ns, "shopper")
		r := root.run("revoke", "shopper", "-n", ns)
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring("add --yes"))
		Expect(exists(key)).To(BeTrue())
	})

	It("revokes several keys, and none if one of them does not exist", func() {
		ns := namespace()
		a, b := issue(ns, "a"), issue(ns, "b")
		expectCode(root.run("revoke", "a", "nobody", "-n", ns, "--yes"), 3)
		Expect(exists(a)).To(BeTrue())
		root.must("revoke", "a", "b", "-n", ns, "--yes")
		Expect(exists(a) || exists(b)).To(BeFalse())
	})

	It("revokes the key of a token", func() {
		ns := namespace()
		text := root.create(ns, "leaked")
		Expect(root.must("revoke", "--token", file(text), "--yes")).To(Equal("apikey.apikey-operator.io/leaked revoked\n"))
		Expect(exists(build.ApiKey(ns, "leaked"))).To(BeFalse())
		expectCode(root.run("revoke", "--token", file(text), "--yes"), 1)
		expectCode(root.run("revoke", "x", "--token", file(text), "--yes"), 2)
		expectCode(root.run("revoke", "--yes"), 2)
	})

	It("waits until the key is gone, and says so if it stays", func() {
		ns := namespace()
		key := issue(ns, "held")
		key.Finalizers = []string{"example.com/hold"}
		Expect(admin.Update(ctx, key)).To(Succeed())
		r := root.run("revoke", "held", "-n", ns, "--yes", "--timeout", "1s")
		expectCode(r, 4)
		Expect(r.err).To(ContainSubstring("its token is refused, but the object is not gone"))
		key = get(ns, "held")
		key.Finalizers = nil
		Expect(admin.Update(ctx, key)).To(Succeed())
	})
})

var _ = Describe("suspend and resume", func() {
	It("turn a key off and on", func() {
		ns := namespace()
		issue(ns, "shopper")
		Expect(root.must("suspend", "shopper", "-n", ns)).To(Equal("apikey.apikey-operator.io/shopper suspended\n"))
		Expect(get(ns, "shopper").IsSuspended()).To(BeTrue())
		Expect(root.must("suspend", "shopper", "-n", ns)).To(ContainSubstring("was suspended already"))
		Eventually(func() v1alpha1.Reason { return get(ns, "shopper").ReadyReason() }).Should(Equal(v1alpha1.ReasonSuspended))
		Expect(root.must("resume", "shopper", "-n", ns)).To(Equal("apikey.apikey-operator.io/shopper resumed\n"))
		Expect(get(ns, "shopper").Spec.Suspend).To(BeNil())
	})

	It("say that Git wins where it sets the field", func() {
		ns := namespace()
		issue(ns, "declared", build.Label("kustomize.toolkit.fluxcd.io/name", "keys"))
		r := root.run("suspend", "declared", "-n", ns)
		expectCode(r, 0)
		Expect(r.err).To(ContainSubstring("Flux manages " + ns + "/declared. If it sets spec.suspend, it will win"))
	})
})

var _ = Describe("roles", func() {
	It("lists the catalogue with what each role includes", func() {
		r := root.run("roles")
		expectCode(r, 0)
		Expect(r.err).To(ContainSubstring("The role catalogue is empty."))
		catalogue(build.ApiRole("a.all", "a.write"), build.ApiRole("a.write", "a.create"), build.ApiRole("a.create"))
		rows := cells(root.must("roles"))
		Expect(rows[0]).To(Equal([]string{"ROLE", "ALLOWS", "INCLUDES"}))
		Expect(rows[1]).To(Equal([]string{"a.all", "What", "a.all", "allows.", "a.create,a.write"}))
		Expect(cells(root.must("roles", "a.create", "-o", "name"))).To(Equal([][]string{{"apirole.apikey-operator.io/a.create"}}))
		expectCode(root.run("roles", "nobody"), 2)
	})
})

var _ = Describe("a catalogue and policies", func() {
	It("refuse a key before it is created, in the operator's words", func() {
		ns := namespace()
		catalogue()
		r := root.run("create", "x", "-n", ns, "--role", "typo", "--expires", "90d")
		expectCode(r, 2)
		// The operator says the same about a key that exists.
		Expect(admin.Create(ctx, build.ApiKey(ns, "waits", build.Roles("typo")))).To(Succeed())
		var message string
		Eventually(func() v1alpha1.Reason { return get(ns, "waits").ReadyReason() }).Should(Equal(v1alpha1.ReasonUnknownRole))
		message, _, _ = strings.Cut(get(ns, "waits").Condition(v1alpha1.ConditionReady).Message, ";")
		Expect(r.err).To(ContainSubstring(message))
		Expect(r.err).NotTo(ContainSubstring("catalogue is empty"))
		Expect(exists(build.ApiKey(ns, "x"))).To(BeFalse())
	})

	It("are missed if nothing can tell whether a role means anything", func() {
		r := root.run("create", "x", "-n", namespace(), "--role", "typo", "--expires", "90d", "--dry-run=server")
		expectCode(r, 0)
		Expect(r.err).To(Equal("The role catalogue is empty, so nothing says whether the key's roles mean anything. " +
			"An operator with --require-catalogue does not issue the key.\n"))
	})

	It("are judged as far as a person may read them, and the rest is left to the operator", func() {
		ns := namespace()
		policy := build.Policy("short", []string{"*"}, build.MaxLifetime("30d"))
		Expect(admin.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() { Expect(admin.Delete(ctx, policy)).To(Succeed()) })
		own := []rbacv1.PolicyRule{on("apikeys", "create", "list", "watch"), onCore("secrets", "get", "delete")}
		create := []string{"create", "-n", ns, "--role", role, "--expires", "90d", "--timeout", "10s"}

		reader := having(ns, own, []rbacv1.PolicyRule{on("apiroles", "list"), on("apikeypolicies", "list"), onCore("namespaces", "get")})
		r := reader.run(append(create, "judged")...)
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring(`nothing was created: no ApiKeyPolicy allows this key: policy "short" refuses expiry.after: 90d (its maxLifetime is 30d)`))
		Expect(exists(build.ApiKey(ns, "judged"))).To(BeFalse())

		blind := having(ns, own, []rbacv1.PolicyRule{on("apikeypolicies", "list"), on("apiroles", "list")})
		r = blind.run(append(create, "unlabelled")...)
		expectCode(r, 4)
		Expect(r.err).To(ContainSubstring("You may not list namespaces, so only the operator can say"))

		tenant := having(ns, own, nil)
		r = tenant.run(append(create, "waits")...)
		expectCode(r, 4)
		Expect(r.err).To(And(ContainSubstring("You may not list apikeypolicies, apiroles, so only the operator can say"), ContainSubstring("the ApiKey is NotAllowed: ")))
	})
})

var _ = Describe("check", func() {
	It("gives the verifier's decision, and why", func() {
		ns := namespace()
		catalogue(build.ApiRole("a.all", "a.write"), build.ApiRole("a.write"))
		text := file(root.create(ns, "shopper", "--role", "a.all", "--cidr", "10.0.0.0/8"))
		for _, c := range []struct {
			args []string
			code int
			want string
		}{
			{[]string{"--role", role, "--from", "10.1.2.3"}, 0, "Allowed: "},
			{[]string{"--role", "a.write", "--from", "10.1.2.3", "--namespace", ns}, 0, "Allowed: "},
			{[]string{"--role", "a.write", "--from", "10.1.2.3", "--namespace", "other"}, 1, "RoleMissing: the key is in namespace"},
			{[]string{"--role", "b", "--from", "10.1.2.3"}, 1, "RoleMissing: the key lacks a role"},
			{[]string{"--role", role, "--from", "11.1.2.3"}, 1, "AddressDenied: the key may be used only from 10.0.0.0/8, and 11.1.2.3 is outside"},
			{[]string{"--role", role}, 1, "AddressDenied: the key may be used only from 10.0.0.0/8, and the client address is unknown"},
			{[]string{"--role", role, "--from", "here"}, 2, ""},
			{[]string{"--role", "NO"}, 2, ""},
		} {
			r := root.run(append([]string{"check", text}, c.args...)...)
			expectCode(r, c.code)
			Expect(r.out).To(HavePrefix(c.want))
			if c.want != "" {
				Expect(r.out).To(ContainSubstring("The token belongs to " + ns + "/shopper."))
			}
		}
		root.must("suspend", "shopper", "-n", ns)
		Expect(root.run("check", text, "--role", role, "--from", "10.1.2.3").out).To(HavePrefix("Suspended: "))
		r := root.feed(token.Mint("ak").Reveal(), "check", "--role", role)
		expectCode(r, 1)
		Expect(r.out).To(HavePrefix("Unknown: no ApiKey has this token"))
	})

	It("says that it can't tell where a right is missing, and answers where that does not matter", func() {
		ns, other := namespace(), namespace()
		catalogue(build.ApiRole("a.all", "a.write"), build.ApiRole("a.write"))
		text, foreign := root.create(ns, "shopper", "--role", "a.all"), root.create(other, "theirs")
		p := having(ns, []rbacv1.PolicyRule{on("apikeys", "list")}, nil)
		p.dir = GinkgoT().TempDir()
		setNamespace(p, ns)
		r := p.feed(text, "check", "--role", role)
		expectCode(r, 0)
		r = p.feed(text, "check", "--role", "a.write")
		expectCode(r, 5)
		Expect(r.out).To(HavePrefix("Can't tell: you may not list apiroles"))
		r = p.feed(foreign, "check", "--role", role)
		expectCode(r, 5)
		Expect(r.out).To(HavePrefix("Can't tell: no key of namespace"))
	})
})

// setNamespace sets the namespace of a person's context.
func setNamespace(p *person, ns string) {
	GinkgoHelper()
	command := p.command()
	command.Path = plane.Kubectl()
	command.Args = []string{"kubectl", "config", "set-context", "--current", "--namespace", ns}
	Expect(command.Run()).To(Succeed())
}

var _ = Describe("completion", func() {
	It("offers names, namespaces and roles", func() {
		ns := namespace()
		issue(ns, "shopper")
		catalogue(build.ApiRole("a.all"))
		complete := func(args ...string) string {
			GinkgoHelper()
			return root.must(append([]string{"__complete"}, args...)...)
		}
		Expect(complete("describe", "-n", ns, "")).To(HavePrefix("shopper\n:4"))
		Expect(complete("revoke", "-n", ns, "shopper", "")).To(HavePrefix(":4"))
		Expect(complete("list", "-n", "")).To(ContainSubstring(ns))
		Expect(complete("create", "x", "--role", "a.")).To(ContainSubstring("a.all\tWhat a.all allows."))
		Expect(complete("")).To(ContainSubstring("create\t"))
	})
})
