package controlplane

import (
	"bufio"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// Page is a running kubectl apikey ui.
type Page struct {
	*Process
	// Link is the one-time URL that opens the page.
	Link string
}

// StartPage runs bin/kubectl-apikey ui with the rights of a kubeconfig. It returns when the page is served. args are appended to the command line.
func (c *ControlPlane) StartPage(kubeconfig string, args ...string) (*Page, error) {
	reader, writer := io.Pipe()
	command := exec.Command(filepath.Join(c.Root, "bin", "kubectl-apikey"), append([]string{"ui", "--no-browser", "--kubeconfig", kubeconfig}, args...)...) //nolint:noctx // Process.Stop stops it
	process, err := StartProcess(command, writer)
	if err != nil {
		return nil, err
	}
	go func() { _ = writer.CloseWithError(errors.Join(errors.New("it has ended"), process.Wait())) }()
	lines := bufio.NewScanner(reader)
	var said []string
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "http://") {
			go func() { _, _ = io.Copy(io.Discard, reader) }() // so that it never waits for a reader
			return &Page{Process: process, Link: lines.Text()}, nil
		}
		said = append(said, lines.Text())
	}
	return nil, errors.Join(errors.New("kubectl apikey ui printed no link: "+strings.Join(said, "; ")), lines.Err())
}
