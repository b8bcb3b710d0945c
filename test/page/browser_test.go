package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	"github.com/chromedp/cdproto/input"
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

// shared is the browser of the suite. Each tab of [newBrowser] has cookies, storage and a cache of its own in it.
var shared context.Context

// launch starts a browser, which ends with the current spec or, in a node of the suite, with that.
func launch(env ...string) context.Context {
	GinkgoHelper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.WindowSize(1280, 900), chromedp.Flag("lang", "en-GB"), chromedp.Env(env...),
		chromedp.WSURLReadTimeout(patience),
	)
	allocated, stop := chromedp.NewExecAllocator(ctx, options...)
	DeferCleanup(stop)
	opened, leave := chromedp.NewContext(allocated)
	DeferCleanup(leave)
	// The first action starts the browser, which must not end with a timeout of the action.
	_, err := chromedp.Run(opened, chromedp.Location())
	Expect(err).NotTo(HaveOccurred(), "start Chromium")
	return opened
}

// newBrowser opens a tab that shares nothing with the tabs of other specs.
func newBrowser() *tab {
	GinkgoHelper()
	return newTab(shared, chromedp.WithNewBrowserContext())
}

func newTab(in context.Context, options ...chromedp.ContextOption) *tab {
	GinkgoHelper()
	opened, leave := chromedp.NewContext(in, options...)
	DeferCleanup(leave)
	t := &tab{opened}
	_, err := chromedp.Run(opened, chromedp.Location())
	Expect(err).NotTo(HaveOccurred())
	// A tab that is not in front has no focus, and browsers do less for it.
	call(t, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	t.size(1280, 900)
	tabs = append(tabs, t)
	return t
}

// tabs are those of the current spec.
var tabs []*tab

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
	text, err := t.try(`({at: location.pathname.split("/").slice(2).join("/"), loaded: document.readyState, focus: document.activeElement?.outerHTML.slice(0, 200),
		dialog: document.querySelector("dialog[open]")?.innerText, page: [...document.querySelectorAll("h1, .refusal, #trouble:not([hidden]), #copied")].map((e) => e.innerText)})`)
	if err != nil {
		return err.Error()
	}
	return text
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
	t.loaded("#part")
}

// loaded waits until a view is there that has an element, and its script has run.
func (t *tab) loaded(selector string) {
	GinkgoHelper()
	t.is(fmt.Sprintf("document.readyState === 'complete' && document.querySelector(%q)", selector))
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

// place is the center of an element that can be clicked, or nothing: the view must be loaded, and the element must be in view, hold still for
// two frames, be enabled, and be covered by nothing.
const place = `(async (e) => {
	if (document.readyState !== "complete" || !e || e.disabled) return null;
	e.scrollIntoView({block: "nearest"});
	const frame = () => new Promise(requestAnimationFrame);
	const box = () => { const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height].join(); };
	await frame();
	const before = box();
	await frame();
	const r = e.getBoundingClientRect();
	const [x, y] = [r.x + r.width / 2, r.y + r.height / 2];
	const top = document.elementFromPoint(x, y);
	return box() === before && top && (e.contains(top) || top.contains(e)) ? [x, y] : null;
})(document.querySelector(%q))`

// click clicks the first element that a selector finds, once it can be clicked.
func (t *tab) click(selector string) {
	GinkgoHelper()
	var at []float64
	Eventually(func() error {
		text, err := t.try(fmt.Sprintf(place, selector))
		if err == nil {
			err = json.Unmarshal([]byte(text), &at)
		}
		if err == nil && at == nil {
			err = errors.New("it is absent, covered, disabled or moving")
		}
		return err
	}).Should(Succeed(), selector)
	t.do(chromedp.MouseClickXY(at[0], at[1]))
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

// press presses keys where the focus is, as a keyboard does: a character belongs to its key, so that a script which handles the key prevents it.
func (t *tab) press(keys string) {
	GinkgoHelper()
	for _, r := range keys {
		events := kb.Encode(r)
		down, up := *events[0], *events[len(events)-1]
		if len(events) == 3 {
			down.Text, down.UnmodifiedText = events[1].Text, events[1].UnmodifiedText
		}
		for _, event := range []input.DispatchKeyEventParams{down, up} {
			call(t, input.DispatchKeyEvent, event)
		}
	}
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
			BrowserContextID: chromedp.FromContext(t.ctx).BrowserContextID,
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
