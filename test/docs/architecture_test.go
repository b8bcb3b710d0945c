package docs

import (
	"regexp"
	"strings"
	"testing"
)

// TestTestsOfInvariantsExist checks that each test exists that the page of the architecture names for an invariant. A name is the folder of
// the test and its name, or the full text of the spec.
func TestTestsOfInvariantsExist(t *testing.T) {
	_, section, found := strings.Cut(page(t, "docs", "architecture", "README.md"), "\n## Invariants\n")
	if !found {
		t.Fatal("docs/architecture/README.md has no section of invariants")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	byFolder := map[string][]*regexp.Regexp{}
	rows := 0
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| invariant ") {
			continue
		}
		rows++
		names := regexp.MustCompile("`([^`:]+): ([^`]+)`").FindAllStringSubmatch(line, -1)
		if len(names) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, name := range names {
			folder, text := name[1], name[2]
			if byFolder[folder] == nil {
				byFolder[folder] = specTexts(t, "../"+folder)
			}
			if !matchesAny(byFolder[folder], text) {
				t.Errorf("%s has no test called %q", folder, text)
			}
		}
	}
	if rows < 20 {
		t.Errorf("only %d invariants", rows)
	}
}
