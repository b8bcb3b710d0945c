package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/chromedp/chromedp/kb"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/apikey-operator/apikey-operator/test/kit/browser"
)

// command is a running kubectl apikey ui.
type command struct {
	process *exec.Cmd
	// link is the one-time link, and origin its origin.
	link, origin string
	stderr       *bytes.Buffer
	done         chan struct{}
}

var link = regexp.MustCompile(`^(http://127\.0\.0\.1:[0-9]+)/open\?token=[0-9a-f]{64}\n$`)

// start runs the command with --no-browser.
func start(kubeconfig, namespace string) *command {
	GinkgoHelper()
	process := exec.CommandContext(ctx, filepath.Join(plane.Root, "bin", "kubectl-apikey"), "ui", "--no-browser", "-n", namespace)
	process.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	stdout, err := process.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	c := &command{process: process, stderr: &bytes.Buffer{}, done: make(chan struct{})}
	process.Stderr = io.MultiWriter(c.stderr, log)
	Expect(process.Start()).To(Succeed())
	text := make([]byte, 200)
	n, err := stdout.Read(text)
	Expect(err).NotTo(HaveOccurred())
	match := link.FindStringSubmatch(string(text[:n]))
	Expect(match).NotTo(BeNil(), "standard output must be a link")
	c.link, c.origin = strings.TrimSpace(match[0]), match[1]
	go func() {
		_, _ = io.Copy(log, stdout)
		_ = process.Wait()
		close(c.done)
	}()
	DeferCleanup(func() {
		_ = process.Process.Kill()
		<-c.done
	})
	return c
}

// exit waits until the command has ended, and returns its exit code.
func (c *command) exit() int {
	GinkgoHelper()
	Eventually(c.done).Should(BeClosed())
	return c.process.ProcessState.ExitCode()
}

// tab is a tab of a browser, in which every action must succeed.
type tab struct{ *browser.Tab }

// tabs are those of the current spec.
var tabs []*tab

// newTab opens a tab, which closes with the current spec.
func newTab(in *browser.Browser) *tab {
	GinkgoHelper()
	opened, err := in.Tab()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(opened.Close)
	t := &tab{opened}
	tabs = append(tabs, t)
	return t
}

var _ = JustAfterEach(func() {
	for _, t := range tabs {
		if CurrentSpecReport().Failed() {
			AddReportEntry("what a tab showed", t.state())
		}
	}
	tabs = nil
})

// state describes a tab for whoever reads why a spec failed. It holds no token.
func (t *tab) state() string {
	text, err := t.Value(`({at: location.pathname.split("/").slice(2).join("/"), loaded: document.readyState, focus: document.activeElement?.outerHTML.slice(0, 200),
		dialog: document.querySelector("dialog[open]")?.innerText, page: [...document.querySelectorAll("h1, .refusal, #trouble:not([hidden]), #copied")].map((e) => e.innerText)})`)
	if err != nil {
		return err.Error()
	}
	return text
}

// open opens the page with its link, as a person does who pastes it.
func (t *tab) open(c *command) {
	GinkgoHelper()
	t.visit(c.link)
	t.click("button.primary")
	t.loaded("#part")
}

// visit opens a URL.
func (t *tab) visit(url string) {
	GinkgoHelper()
	Expect(t.Open(url)).To(Succeed())
}

func (t *tab) reload() {
	GinkgoHelper()
	Expect(t.Reload()).To(Succeed())
}

// loaded waits until a view is there that has an element, and its script has run.
func (t *tab) loaded(selector string) {
	GinkgoHelper()
	t.is(fmt.Sprintf("document.readyState === 'complete' && document.querySelector(%q)", selector))
}

// eval evaluates an expression, or waits for a promise, and returns the value as JSON.
func (t *tab) eval(expression string) string {
	GinkgoHelper()
	text, err := t.Value(expression)
	Expect(err).NotTo(HaveOccurred())
	return text
}

// is waits until an expression is true.
func (t *tab) is(expression string) {
	GinkgoHelper()
	Expect(t.Until(expression)).To(Succeed())
}

// shows waits until an element shows a text.
func (t *tab) shows(selector, text string) {
	GinkgoHelper()
	Eventually(func() string { return t.text(selector) }).Should(ContainSubstring(text), selector)
}

// text returns the text of an element as a person sees it, or nothing.
func (t *tab) text(selector string) string {
	shown, err := t.Value(fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
	var text string
	if err == nil {
		err = json.Unmarshal([]byte(shown), &text)
	}
	if err != nil {
		return ""
	}
	return text
}

func (t *tab) click(selector string) {
	GinkgoHelper()
	Expect(t.Click(selector)).To(Succeed())
}

func (t *tab) fill(selector, text string) {
	GinkgoHelper()
	t.click(selector)
	t.is(fmt.Sprintf("document.activeElement.matches(%q)", selector))
	t.press(text)
}

// set replaces the text of a field.
func (t *tab) set(selector, text string) {
	GinkgoHelper()
	t.eval(fmt.Sprintf(`((e) => { e.value = %q; e.dispatchEvent(new Event("input", {bubbles: true})); })(document.querySelector(%q))`, text, selector))
}

// press presses keys where the focus is.
func (t *tab) press(keys string) {
	GinkgoHelper()
	Expect(t.Press(keys)).To(Succeed())
}

// maxTabs is how many times a person may have to press Tab in one view.
const maxTabs = 40

// tabTo presses Tab until an element has the focus.
func (t *tab) tabTo(selector string) {
	GinkgoHelper()
	for range maxTabs {
		if t.eval(fmt.Sprintf("document.activeElement.matches(%q)", selector)) == "true" {
			return
		}
		t.press(kb.Tab)
	}
	Fail("Tab does not reach " + selector)
}

// dark selects the colors.
func (t *tab) dark(dark bool) {
	GinkgoHelper()
	Expect(t.Dark(dark)).To(Succeed())
}

// size sets the size of the window.
func (t *tab) size(width, height int64) {
	GinkgoHelper()
	Expect(t.Size(width, height)).To(Succeed())
}

// picture writes a picture of the view to the folder $PICTURES, if that is set.
func (t *tab) picture(name string) {
	GinkgoHelper()
	folder := os.Getenv("PICTURES")
	if folder == "" {
		return
	}
	png, err := t.Picture()
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(filepath.Join(folder, name+".png"), png, 0o600)).To(Succeed())
}

// listen returns the address of a server on the loopback that passes each connection on, and ends with the spec.
func listen(accept func(net.Conn)) string {
	GinkgoHelper()
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(listener.Close)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go accept(conn)
		}
	}()
	return listener.Addr().String()
}

// soon is how long a change may take until it is on the page.
const soon = time.Second
