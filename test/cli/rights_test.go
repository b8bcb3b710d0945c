package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// documented is the table of rights in docs/kubectl-apikey.md: what each verb needs, as a text.
func documented() map[string]string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "kubectl-apikey.md"))
	Expect(err).NotTo(HaveOccurred())
	_, section, found := strings.Cut(string(text), "\n## Rights\n")
	Expect(found).To(BeTrue())
	rows := map[string]string{}
	for line := range strings.Lines(section) {
		if columns := strings.Split(line, "|"); len(columns) == 5 && strings.Contains(columns[1], "`") {
			for verb := range strings.SplitSeq(strings.TrimSpace(columns[1]), ", ") {
				rows[strings.Trim(verb, "`")] = strings.TrimSpace(columns[2])
			}
		}
	}
	return rows
}

var resources = regexp.MustCompile("`([a-z]+)` ([a-z]+(?:, [a-z]+)*)")

// rights reads what a cell of the table grants, one rule for each right. everywhere says that the rights are in the whole cluster.
func rights(cell string) (rules []rbacv1.PolicyRule, everywhere bool) {
	for _, match := range resources.FindAllStringSubmatch(cell, -1) {
		group := v1alpha1.GroupVersion.Group
		if slices.Contains([]string{"secrets", "namespaces", "events"}, match[1]) {
			group = ""
		}
		for verb := range strings.SplitSeq(match[2], ", ") {
			if verb == "in" {
				break
			}
			rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{match[1]}, Verbs: []string{verb}})
		}
	}
	return rules, strings.Contains(cell, "in the cluster") || strings.Contains(cell, "in all namespaces")
}

var _ = Describe("The rights in docs/kubectl-apikey.md", func() {
	// The commands of each verb, for a key with a token in a file. What a verb needs besides goes without it, such as the deletion of a
	// Secret, after which the operator does it.
	commands := map[string]struct {
		args     []string
		optional []string
	}{
		"create":                       {[]string{"create", "new", "--role", role, "--expires", "90d"}, []string{"secrets delete"}},
		"create --keep-secret -o name": {[]string{"create", "new", "--role", role, "--expires", "90d", "--keep-secret", "-o", "name"}, nil},
		"list":                         {[]string{"list"}, nil},
		"describe":                     {[]string{"describe", "shopper"}, nil},
		"find":                         {[]string{"find", "FILE"}, nil},
		"check":                        {[]string{"check", "--role", role, "FILE"}, nil},
		"revoke":                       {[]string{"revoke", "shopper", "--yes", "--timeout", "5s"}, nil},
		"rotate":                       {[]string{"rotate", "shopper", "--yes", "--timeout", "20s"}, nil},
		"suspend":                      {[]string{"suspend", "shopper"}, nil},
		"resume":                       {[]string{"resume", "shopper"}, nil},
		"roles":                        {[]string{"roles"}, nil},
		"scan":                         {[]string{"scan", "/dev/null"}, nil},
		"backup":                       {[]string{"backup", "-"}, nil},
	}

	It("cover every verb", func() {
		verbs := map[string]bool{}
		for verb := range documented() {
			verbs[strings.Fields(verb)[0]] = true
		}
		listed := false
		for line := range strings.Lines(root.must()) {
			switch words := strings.Fields(line); {
			case strings.HasPrefix(line, "Verbs:"):
				listed = true
			case len(words) == 0:
				listed = false
			case listed && words[0] != "options" && words[0] != "version":
				Expect(verbs).To(HaveKey(words[0]))
			}
		}
		for verb := range documented() {
			if verb != "restore" && verb != "ui" { // specs of test/page have the rights of ui
				Expect(commands).To(HaveKey(verb), "the table has a verb that this test does not run")
			}
		}
	})

	for verb, command := range commands {
		It("are enough for "+verb+", and each is needed", func() {
			cell, found := documented()[verb]
			Expect(found).To(BeTrue())
			all, everywhere := rights(cell)
			attempt := func(rules []rbacv1.PolicyRule) result {
				GinkgoHelper()
				ns := namespace()
				issue(ns, "shopper")
				kept := secret(ns, "shopper")
				Expect(exists(kept)).To(BeTrue())
				text := string(kept.Data["token"])
				log.Remember(text)
				if verb == "resume" {
					root.must("suspend", "shopper", "-n", ns)
				}
				local, global := rules, []rbacv1.PolicyRule(nil)
				if everywhere {
					local, global = nil, rules
				}
				p := having(ns, local, global)
				setNamespace(p, ns)
				args := slices.Clone(command.args)
				if i := slices.Index(args, "FILE"); i >= 0 {
					args[i] = file(text)
				}
				r := p.run(args...)
				if strings.HasPrefix(verb, "create") {
					log.Remember(strings.TrimSpace(r.out))
				}
				return r
			}
			expectCode(attempt(all), 0)
			for i, right := range all {
				if slices.Contains(command.optional, right.Resources[0]+" "+right.Verbs[0]) {
					continue
				}
				r := attempt(slices.Delete(slices.Clone(all), i, i+1))
				Expect(r.code).NotTo(BeZero(), "%s works without the right to %s %s", verb, right.Verbs[0], right.Resources[0])
			}
		})
	}
})
