package monitoring

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// checkProtocols checks that docs/protocols.md has a section for each protocol that the verifier counts decisions of.
func checkProtocols(t *testing.T, exposed []labels.Labels) {
	t.Helper()
	sections := map[string]bool{}
	for line := range strings.Lines(read(t, "docs", "protocols.md")) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			sections[strings.ToLower(strings.TrimSpace(title))] = true
		}
	}
	protocols := map[string]bool{}
	for _, series := range exposed {
		if name := series.Get("protocol"); name != "" {
			protocols[name] = true
		}
	}
	if len(protocols) == 0 {
		t.Fatal("no series has a label protocol")
	}
	for name := range protocols {
		if !sections[strings.ToLower(name)] {
			t.Errorf("docs/protocols.md has no section for the protocol %s", name)
		}
	}
}
