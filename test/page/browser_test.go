package page

import (
	"bytes"
	"context"
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

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
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
func start(kubeconfig, namespace string, args ...string) *command {
	GinkgoHelper()
	process := exec.CommandContext(ctx, filepath.Join(plane.Root, "bin", "kubectl-apikey"), append([]string{"ui", "--no-browser", "-n", namespace}, args...)...)
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

// tab is a tab of a browser.
type tab struct {
	ctx context.Context
}

// newBrowser starts a browser of its own, with an empty profile.
func newBrowser(env ...string) *tab {
	GinkgoHelper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.WindowSize(1280, 900), chromedp.Flag("lang", "en-GB"), chromedp.Env(env...),
		chromedp.WSURLReadTimeout(patience), chromedp.Flag("force-color-profile", "srgb"),
	)
	allocated, cancel := chromedp.NewExecAllocator(ctx, options...)
	DeferCleanup(cancel)
	return newTab(allocated)
}

func newTab(in context.Context) *tab {
	GinkgoHelper()
	opened, cancel := chromedp.NewContext(in)
	DeferCleanup(cancel)
	t := &tab{opened}
	// The first action starts the browser, which must not end with a timeout of the action.
	_, err := chromedp.Run(opened, chromedp.Location())
	Expect(err).NotTo(HaveOccurred())
	t.size(1280, 900)
	return t
}

// run runs an action and returns its value.
func run[T any](t *tab, action chromedp.Action[T]) (T, error) {
	limited, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	return chromedp.Run(limited, action)
}

// do runs actions, which must succeed in time.
func (t *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	GinkgoHelper()
	for _, action := range actions {
		_, err := run(t, action)
		Expect(err).NotTo(HaveOccurred())
	}
}

// call sends a command of the browser's protocol.
func call[P, R any](t *tab, command cdp.Command[P, R], params P) R {
	GinkgoHelper()
	result, err := run(t, func(ctx context.Context, target *chromedp.Target) (R, error) {
		return cdp.Call(ctx, target, command, params)
	})
	Expect(err).NotTo(HaveOccurred())
	return result
}

// open opens the page with its link, as a person does who pastes it.
func (t *tab) open(c *command) {
	GinkgoHelper()
	t.do(chromedp.Navigate(c.link))
	t.click("button.primary")
	t.is("document.querySelector('#part')")
}

// eval evaluates an expression, or waits for a promise, and returns the value as JSON.
func (t *tab) eval(expression string) string {
	GinkgoHelper()
	text, err := t.try(expression)
	Expect(err).NotTo(HaveOccurred())
	return text
}

func (t *tab) try(expression string) (string, error) {
	return run(t, chromedp.Evaluate[string]("(async () => JSON.stringify(await ("+expression+")) ?? 'null')()", chromedp.EvalAwaitPromise))
}

// is waits until an expression is true. While a view is being replaced it may fail.
func (t *tab) is(expression string) {
	GinkgoHelper()
	Eventually(func() (string, error) { return t.try("!!(" + expression + ")") }).Should(Equal("true"), expression)
}

// shows waits until an element shows a text.
func (t *tab) shows(selector, text string) {
	GinkgoHelper()
	Eventually(func() string { return t.text(selector) }).Should(ContainSubstring(text), selector)
}

// text returns the text of an element as a person sees it, or nothing.
func (t *tab) text(selector string) string {
	shown, err := t.try(fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
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
	t.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

func (t *tab) fill(selector, text string) {
	GinkgoHelper()
	t.click(selector)
	t.do(chromedp.KeyEvent(text))
}

// set replaces the text of a field.
func (t *tab) set(selector, text string) {
	GinkgoHelper()
	t.eval(fmt.Sprintf(`((e) => { e.value = %q; e.dispatchEvent(new Event("input", {bubbles: true})); })(document.querySelector(%q))`, text, selector))
}

// press presses a key where the focus is.
func (t *tab) press(key string) {
	GinkgoHelper()
	t.do(chromedp.KeyEvent(key))
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

// allowClipboard lets the page read the clipboard. To write it, a click is enough.
func (t *tab) allowClipboard() {
	GinkgoHelper()
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		call(t, browser.SetPermission, browser.SetPermissionParams{
			Permission: &browser.PermissionDescriptor{Name: name}, Setting: browser.PermissionSettingGranted,
		})
	}
}

// dark selects the colors.
func (t *tab) dark(dark bool) {
	GinkgoHelper()
	value := "light"
	if dark {
		value = "dark"
	}
	call(t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: value}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// size sets the size of the window.
func (t *tab) size(width, height int64) {
	GinkgoHelper()
	call(t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
}

// picture writes a picture of the view to the folder $PICTURES, if that is set.
func (t *tab) picture(name string) {
	GinkgoHelper()
	folder := os.Getenv("PICTURES")
	if folder == "" {
		return
	}
	png, err := run(t, chromedp.CaptureScreenshot())
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(filepath.Join(folder, name+".png"), png, 0o600)).To(Succeed())
}

// listen returns the address of a server on the loopback that passes each connection on, and ends with the spec.
func listen(accept func(net.Conn)) string {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
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
