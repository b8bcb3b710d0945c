package commands

import (
	"fmt"
	"strings"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

// progress shows on a terminal what a key waits for, on one line that it overwrites.
type progress struct {
	s     *session
	on    bool
	width int
}

// maxProgress is the longest line. A longer one would wrap, and could not be overwritten.
const maxProgress = 78

func newProgress(s *session) *progress {
	p := &progress{s: s, on: isTerminal(s.ErrOut)}
	p.print("Waiting for the operator ...")
	return p
}

// show shows the state of a key.
func (p *progress) show(key *v1alpha1.ApiKey) {
	if !key.IsReady() {
		p.print("Waiting: " + keys.WaitsFor(key))
	}
}

func (p *progress) print(text string) {
	if !p.on {
		return
	}
	line := []rune(clean(text))
	if len(line) > maxProgress {
		line = append(line[:maxProgress-3], []rune("...")...)
	}
	padding := strings.Repeat(" ", max(0, p.width-len(line)))
	_, _ = fmt.Fprintf(p.s.ErrOut, "\r%s%s", string(line), padding)
	p.width = len(line)
}

// end removes the line.
func (p *progress) end() {
	if p.on {
		_, _ = fmt.Fprintf(p.s.ErrOut, "\r%s\r", strings.Repeat(" ", p.width))
	}
}
