// Package browser uses a page in a real Chromium as a person does, with a mouse or a keyboard.
//
// It waits for what a person waits for: a page that is loaded, and an element that is there, holds still and is covered by nothing. It never
// waits for a time to pass.
package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Patience is how long an action may take. It is long because the machine may be busy.
const Patience = time.Minute

// pollTime is the time between two looks at a page that is not as it should be yet.
const pollTime = 20 * time.Millisecond

// Width and Height are the size of the window of a new tab, in pixels.
const (
	Width  = 1280
	Height = 900
)

// Browser is a running Chromium with an empty profile.
type Browser struct {
	ctx   context.Context
	close func()
}

// Start starts the chromium of the PATH. env is added to its environment.
func Start(ctx context.Context, env ...string) (*Browser, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, fmt.Errorf("the page needs Chromium (apt-get install chromium): %w", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("lang", "en-GB"), chromedp.Env(env...), chromedp.WSURLReadTimeout(Patience),
	)
	allocated, stop := chromedp.NewExecAllocator(ctx, options...)
	opened, leave := chromedp.NewContext(allocated)
	b := &Browser{ctx: opened, close: func() { leave(); stop() }}
	// The first action starts the process, which must not end with a timeout of the action.
	if _, err := chromedp.Run(opened, chromedp.Location()); err != nil {
		b.Close()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return b, nil
}

// Close ends the browser.
func (b *Browser) Close() { b.close() }

// Tab is a tab of a browser.
type Tab struct {
	ctx   context.Context
	close func()
}

// Tab opens a tab. It shares no cookies, no storage and no cache with other tabs.
func (b *Browser) Tab() (*Tab, error) {
	opened, leave := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t := &Tab{ctx: opened, close: leave}
	_, err := chromedp.Run(opened, chromedp.Location())
	if err == nil {
		// A tab that is not in front has no focus, and browsers do less for it.
		_, err = call(t, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	}
	if err == nil {
		err = t.Size(Width, Height)
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("open a tab: %w", err)
	}
	return t, nil
}

// Close closes the tab.
func (t *Tab) Close() { t.close() }

func run[T any](t *Tab, action chromedp.Action[T]) (T, error) {
	limited, cancel := context.WithTimeout(t.ctx, Patience)
	defer cancel()
	return chromedp.Run(limited, action)
}

func call[P, R any](t *Tab, command cdp.Command[P, R], params P) (R, error) {
	return run(t, func(ctx context.Context, target *chromedp.Target) (R, error) {
		return cdp.Call(ctx, target, command, params)
	})
}

// Open opens a URL.
func (t *Tab) Open(url string) error {
	_, err := run(t, chromedp.Navigate(url))
	return err
}

// Reload loads the page again.
func (t *Tab) Reload() error {
	_, err := run(t, chromedp.Reload())
	return err
}

// Load runs a script in the page, also where the page's own policy allows none.
func (t *Tab) Load(script string) error {
	_, err := run(t, chromedp.Evaluate[chromedp.Void](script+";undefined"))
	return err
}

// Value evaluates an expression in the page, waits for it if it is a promise, and returns its value as JSON.
func (t *Tab) Value(expression string) (string, error) {
	return run(t, chromedp.Evaluate[string]("(async () => JSON.stringify(await ("+expression+")) ?? 'null')()", chromedp.EvalAwaitPromise))
}

// Until waits until an expression is true. While the page is being replaced, it may fail.
func (t *Tab) Until(expression string) error {
	return t.poll(func() (bool, error) {
		value, err := t.Value("!!(" + expression + ")")
		return value == "true", err
	}, expression)
}

// poll waits until a condition is true.
func (t *Tab) poll(condition func() (bool, error), what string) error {
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	for {
		done, err := condition()
		if done {
			return nil
		}
		select {
		case <-limit.C:
			return errors.Join(fmt.Errorf("not so within %s: %s", Patience, what), err)
		case <-t.ctx.Done():
			return errors.Join(t.ctx.Err(), err)
		case <-time.After(pollTime):
		}
	}
}

// place is the center of an element that can be clicked, or null. The page must be loaded. The element must hold still for a frame, be enabled,
// and be covered by nothing.
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

// Click clicks the first element that a selector finds, once it can be clicked.
func (t *Tab) Click(selector string) error {
	var at []float64
	err := t.poll(func() (bool, error) {
		text, err := t.Value(fmt.Sprintf(place, selector))
		if err == nil {
			err = json.Unmarshal([]byte(text), &at)
		}
		return err == nil && at != nil, err
	}, selector+" can be clicked")
	if err != nil {
		return err
	}
	_, err = run(t, chromedp.MouseClickXY(at[0], at[1]))
	return err
}

// Press presses keys where the focus is, as a keyboard does: a character belongs to its key, so that a script which handles the key prevents it.
func (t *Tab) Press(keys string) error {
	for _, r := range keys {
		events := kb.Encode(r)
		down, up := *events[0], *events[len(events)-1]
		if len(events) == 3 {
			down.Text, down.UnmodifiedText = events[1].Text, events[1].UnmodifiedText
		}
		for _, event := range []input.DispatchKeyEventParams{down, up} {
			if _, err := call(t, input.DispatchKeyEvent, event); err != nil {
				return err
			}
		}
	}
	return nil
}

// Size sets the size of the window, in pixels.
func (t *Tab) Size(width, height int64) error {
	_, err := call(t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
	return err
}

// Dark selects dark or light colors, and switches motion off.
func (t *Tab) Dark(dark bool) error {
	value := "light"
	if dark {
		value = "dark"
	}
	_, err := call(t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: value}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	return err
}

// Picture returns a picture of the window as PNG.
func (t *Tab) Picture() ([]byte, error) { return run(t, chromedp.CaptureScreenshot()) }

// AllowClipboard lets the page read and write the clipboard.
func (t *Tab) AllowClipboard() error {
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		_, err := call(t, browser.SetPermission, browser.SetPermissionParams{
			Permission: &browser.PermissionDescriptor{Name: name}, Setting: browser.PermissionSettingGranted,
			BrowserContextID: chromedp.FromContext(t.ctx).BrowserContextID,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
