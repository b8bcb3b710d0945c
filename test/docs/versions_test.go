package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	pinned   = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes v(1\.\d+)\.(\d+)$`)
	orLater  = regexp.MustCompile(`Kubernetes (1\.\d+) or later`)
	lowest   = regexp.MustCompile(`(?m)^kubeVersion: ">=(1\.\d+)\.0-0"$`)
	released = regexp.MustCompile(`\b1\.\d+\.\d+\b`)
)

// TestPagesAndChartNameTheSameFloor checks that all places name the same oldest supported release, the one that make test-versions runs.
func TestPagesAndChartNameTheSameFloor(t *testing.T) {
	oldest := release(t, "oldest.mod")
	said := map[string]bool{}
	for _, name := range pages(t) {
		for _, match := range orLater.FindAllStringSubmatch(page(t, name), -1) {
			said[name] = true
			if match[1] != oldest[1] {
				t.Errorf("%s says %q, but hack/kube/controlplane/oldest.mod pins %s", name, match[0], oldest[1])
			}
		}
	}
	for _, name := range []string{"README.md", "docs/install.md", "docs/releases.md"} {
		if !said[name] {
			t.Errorf("%s does not name the oldest supported release of Kubernetes", name)
		}
	}
	chart := lowest.FindStringSubmatch(page(t, "charts", "apikey-operator", "Chart.yaml"))
	if chart == nil || chart[1] != oldest[1] {
		t.Errorf("the chart's kubeVersion is %q, want %s", chart, oldest[1])
	}
}

// The table of docs/releases.md names the releases of Kubernetes that are tested, with their patch versions.
func TestReleasesPageNamesTheTestedReleases(t *testing.T) {
	_, section, found := strings.Cut(page(t, "docs", "releases.md"), "\n## Versions of Kubernetes\n")
	if !found {
		t.Fatal("docs/releases.md has no section on versions of Kubernetes")
	}
	table, _, _ := strings.Cut(section, "\n### ")
	want := make([]string, 2)
	for i, file := range []string{"go.mod", "oldest.mod"} {
		version := release(t, file)
		want[i] = version[1] + "." + version[2]
	}
	if got := released.FindAllString(table, -1); !slices.Equal(got, want) {
		t.Errorf("docs/releases.md names %v, and the modules pin %v", got, want)
	}
}

// release returns the version of Kubernetes in a module file of the control plane: the whole match, the minor version and the patch.
func release(t *testing.T, file string) []string {
	t.Helper()
	match := pinned.FindStringSubmatch(page(t, "hack", "kube", "controlplane", file))
	if match == nil {
		t.Fatalf("%s pins no version of Kubernetes", file)
	}
	return match
}
