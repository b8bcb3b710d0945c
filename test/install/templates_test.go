package install

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"sigs.k8s.io/yaml"
)

// A subchart shares its named templates with all other charts of its parent. Of several templates with the same name, the last one counts.
var _ = Describe("The chart's named templates", func() {
	const prefix = "apikey-operator."
	names := func() []string {
		GinkgoHelper()
		files, err := filepath.Glob(filepath.Join(chartFolder, "templates", "*"))
		Expect(err).NotTo(HaveOccurred())
		var found []string
		for _, file := range files {
			text, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			for _, match := range regexp.MustCompile(`{{-?\s*(?:define|block)\s+"([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
				found = append(found, match[1])
			}
		}
		Expect(len(found)).To(BeNumerically(">", 10))
		return found
	}

	It("have the chart's name before theirs", func() {
		for _, name := range names() {
			Expect(name).To(HavePrefix(prefix))
		}
	})

	It("do what they do beside a chart that has templates of these names without it", func() {
		ours, err := loader.Load(chartFolder)
		Expect(err).NotTo(HaveOccurred())
		var theirs strings.Builder // defines templates that output nothing; empty ones would be ignored
		for _, name := range names() {
			theirs.WriteString(`{{- define "` + strings.TrimPrefix(name, prefix) + `" }}{{ "" }}{{ end }}` + "\n")
		}
		// Of two subcharts, the templates of the one whose name comes first win.
		another := &chart.Chart{
			Metadata:  &chart.Metadata{APIVersion: chart.APIVersionV2, Name: "another", Version: "1.0.0"},
			Templates: []*common.File{{Name: "templates/_helpers.tpl", Data: []byte(theirs.String())}},
		}
		whole := &chart.Chart{Metadata: &chart.Metadata{APIVersion: chart.APIVersionV2, Name: "whole", Version: "1.0.0"}}
		whole.AddDependency(ours, another)

		values := map[string]any{}
		Expect(yaml.UnmarshalStrict([]byte(everything), &values)).To(Succeed())
		within, err := yaml.Marshal(map[string]any{"apikey-operator": values})
		Expect(err).NotTo(HaveOccurred())
		have, err := renderChart(whole, release, releaseNamespace, string(within))
		Expect(err).NotTo(HaveOccurred())

		Expect(args(have, "apikey-operator")).To(ContainElement("--namespaces=team-a,team-b"))
		Expect(args(have, "apikey-verifier")).To(ContainElement("--trusted-proxies=10.0.7.0/24,2001:db8::/64"))
		Expect(have).To(BeComparableTo(mustRender(everything)))
	})
})
