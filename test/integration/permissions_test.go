package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// allVerbs are the verbs that are checked. Those that a cell of the table doesn't name must be refused. Only the operator may issue, and
// only a wildcard grants no-such-verb.
var allVerbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "issue", "no-such-verb"}

// clusterScoped are the columns whose resources have no namespace. A Namespace counts as being in itself.
var clusterScoped = map[string]bool{
	"apiroles": true, "apiroles/status": true, "apikeypolicies": true, "tokenreviews": true, "subjectaccessreviews": true,
}

// groups are the API groups of the columns' resources. Other resources are in the product's own group.
var groups = map[string]string{
	"secrets": "", "namespaces": "", "tokenreviews": "authentication.k8s.io", "subjectaccessreviews": "authorization.k8s.io",
}

// permission is a row of the table in docs/security.md: a subject, and its verbs by column.
type permission struct {
	who   string
	verbs map[string][]string
}

// permissions reads the table under the heading "Who may do what" in docs/security.md.
func permissions() []permission {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(plane.Root, "docs", "security.md"))
	Expect(err).NotTo(HaveOccurred())
	_, section, found := strings.Cut(string(text), "\n## Who may do what\n")
	Expect(found).To(BeTrue())
	var columns []string
	var rows []permission
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if columns != nil {
				break // only the first table
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "`", ""))
		}
		switch {
		case columns == nil:
			columns = cells
		case strings.HasPrefix(cells[0], "---"):
		default:
			Expect(cells).To(HaveLen(len(columns)), line)
			row := permission{who: cells[0], verbs: map[string][]string{}}
			for i, cell := range cells[1:] {
				row.verbs[columns[i+1]] = expand(cell)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// expand returns the verbs that a cell names.
func expand(cell string) []string {
	GinkgoHelper()
	shorthand := map[string]string{"see": "get list watch", "all": "get list watch create update patch delete deletecollection", "–": ""}
	var verbs []string
	for _, word := range strings.Fields(strings.ReplaceAll(cell, ",", " ")) {
		if long, ok := shorthand[word]; ok {
			word = long
		}
		for _, verb := range strings.Fields(word) {
			Expect(allVerbs).To(ContainElement(verb))
			verbs = append(verbs, verb)
		}
	}
	return verbs
}

var _ = Describe("The table of who may do what", Label("releases"), func() {
	It("in docs/security.md is what the API server says", func() {
		rows := permissions()
		Expect(len(rows)).To(BeNumerically(">=", 9))
		ns := namespace()
		who := regexp.MustCompile(`^(ClusterRole|ServiceAccount) ([a-z-]+)(, whole cluster)?$`)
		for i, row := range rows {
			match := who.FindStringSubmatch(row.who)
			Expect(match).NotTo(BeNil(), "%q is not a subject", row.who)
			var c client.Client
			if match[1] == "ServiceAccount" {
				config, err := plane.As(ctx, controlplane.Namespace, match[2])
				Expect(err).NotTo(HaveOccurred())
				c, err = client.New(config, client.Options{Scheme: harness.Scheme()})
				Expect(err).NotTo(HaveOccurred())
			} else {
				c = serviceAccount(ns, "subject-"+string(rune('a'+i)), match[3] != "", match[2])
			}
			for column, expected := range row.verbs {
				// The API server aggregates the product's ClusterRoles into its own some time after the installation.
				Eventually(func() []string { return allowed(c, ns, column) }).Should(ConsistOf(expected), "%s on %s", row.who, column)
			}
		}
	})
})

// allowed returns the verbs that a client may use on a resource. ns is ignored if the resource has no namespace.
func allowed(c client.Client, ns, column string) []string {
	GinkgoHelper()
	resource, subresource, _ := strings.Cut(column, "/")
	group, known := groups[resource]
	if !known {
		group = "apikey-operator.io"
	}
	if clusterScoped[column] {
		ns = ""
	}
	var verbs []string
	for _, verb := range allVerbs {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: ns, Verb: verb, Group: group, Resource: resource, Subresource: subresource,
			},
		}}
		Expect(c.Create(ctx, review)).To(Succeed())
		if review.Status.Allowed {
			verbs = append(verbs, verb)
		}
	}
	return verbs
}
