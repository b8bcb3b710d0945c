package cli

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"sync"

	"github.com/creack/pty"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// terminal is a command on a terminal of its own.
type terminal struct {
	command *exec.Cmd
	tty     *os.File
	done    chan struct{}

	mu     sync.Mutex
	screen bytes.Buffer
}

// onTerminal starts the command on a terminal.
func (p *person) onTerminal(args ...string) *terminal {
	GinkgoHelper()
	t := &terminal{command: p.command(args...), done: make(chan struct{})}
	var err error
	t.tty, err = pty.StartWithSize(t.command, &pty.Winsize{Rows: 40, Cols: 120})
	Expect(err).NotTo(HaveOccurred())
	go func() {
		defer close(t.done)
		_, _ = io.Copy(t, t.tty) // ends with an error when the command has ended
	}()
	DeferCleanup(t.tty.Close)
	return t
}

// Write implements io.Writer.
func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.Write(p)
}

// text returns what the terminal has shown so far.
func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.String()
}

// shows waits until the terminal shows a text.
func (t *terminal) shows(text string) {
	GinkgoHelper()
	Eventually(func() bool { return bytes.Contains([]byte(t.text()), []byte(text)) }).Should(BeTrue(), "%q is not on the terminal", text)
}

// types sends a line.
func (t *terminal) types(line string) {
	GinkgoHelper()
	_, err := io.WriteString(t.tty, line)
	Expect(err).NotTo(HaveOccurred())
}

// end waits until the command has ended, and returns what it showed.
func (t *terminal) end() result {
	GinkgoHelper()
	_ = t.command.Wait() // the exit code says it
	<-t.done
	return result{out: t.text(), code: t.command.ProcessState.ExitCode()}
}
