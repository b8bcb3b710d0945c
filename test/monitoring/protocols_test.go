package monitoring

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// checkProtocols checks that the documented row of the verifier's decisions names each protocol by which they are counted.
func checkProtocols(t *testing.T, exposed []labels.Labels) {
	t.Helper()
	const metric = "apikey_verifier_decisions_total"
	var row string
	for _, pattern := range []string{"*.md", "*/*.md"} {
		pages, err := filepath.Glob(filepath.Join("..", "..", "docs", pattern))
		if err != nil || len(pages) == 0 {
			t.Fatalf("no pages docs/%s: %v", pattern, err)
		}
		for _, path := range pages {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "| `"+metric+"{") {
					row = line
				}
			}
		}
	}
	protocols := map[string]bool{}
	for _, series := range exposed {
		if name := series.Get("protocol"); name != "" {
			protocols[name] = true
		}
	}
	if row == "" || len(protocols) == 0 {
		t.Fatalf("row of %s: %q; protocols: %v", metric, row, protocols)
	}
	for name := range protocols {
		if !strings.Contains(row, "`"+name+"`") {
			t.Errorf("the row of %s in docs does not name the protocol %s", metric, name)
		}
	}
}
