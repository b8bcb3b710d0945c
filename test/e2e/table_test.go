//go:build e2e

package e2e

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
)

// table holds the figures that the suite prints at its end.
type table struct{ rows [][2]string }

func (t *table) add(what, format string, args ...any) {
	t.rows = append(t.rows, [2]string{what, fmt.Sprintf(format, args...)})
	GinkgoWriter.Printf("%s: %s\n", what, t.rows[len(t.rows)-1][1])
}

func (t *table) print() {
	var text strings.Builder
	for _, row := range t.rows {
		_, _ = fmt.Fprintf(&text, "%-44s %s\n", row[0], row[1])
	}
	fmt.Print("\n" + text.String())
}
