package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/browser"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// What the page of kubectl apikey ui must stay quick with.
const (
	pageKeys  = 1000
	pageRoles = 500
)

// benchPage measures the page in a real browser: how long it takes until something is seen, and how it answers a keyboard.
func benchPage(ctx context.Context, rounds int) (err error) {
	plane, err := install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	if err := fillPage(ctx, plane); err != nil {
		return err
	}
	chromium, err := browser.Start(ctx)
	if err != nil {
		return err
	}
	defer chromium.Close()
	tab, err := chromium.Tab()
	if err != nil {
		return err
	}
	defer tab.Close()
	folder, err := os.MkdirTemp("", "bench-page-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	kubeconfig := filepath.Join(folder, "kubeconfig")
	if err := plane.AdminKubeconfig(kubeconfig); err != nil {
		return err
	}
	page, err := plane.StartPage(kubeconfig, "-n", "page")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, page.Stop()) }()
	if err := errors.Join(tab.Open(page.Link), tab.Click("button.primary"), tab.Until(`document.querySelector("#rows")`)); err != nil {
		return err
	}
	m := &pageMeter{tab: tab}
	for range rounds {
		if err := m.round(); err != nil {
			return err
		}
	}
	fmt.Printf("\nThe page with %d keys and %d roles in Chromium, median of %d rounds. A task under 50 ms is not reported by browsers\n\n", pageKeys, pageRoles, rounds)
	fmt.Println("| measure | value | goal |")
	fmt.Println("|---|---|---|")
	fmt.Printf("| first contentful paint | %.0f ms | 1000 ms |\n", middle(m.paint))
	fmt.Printf("| longest task while typing in the filter of keys | %s | 50 ms |\n", task(m.filtering.task))
	fmt.Printf("| slowest key press there, until it is on the screen | %.0f ms | |\n", middle(m.filtering.press))
	fmt.Printf("| longest task while typing in the search for roles | %s | 50 ms |\n", task(m.searching.task))
	fmt.Printf("| slowest key press there, until it is on the screen | %.0f ms | |\n", middle(m.searching.press))
	return nil
}

// task writes the median duration of the longest task.
func task(durations []float64) string {
	if longest := middle(durations); longest > 0 {
		return fmt.Sprintf("%.0f ms", longest)
	}
	return "under 50 ms"
}

// fillPage creates the roles, and the keys with one each.
func fillPage(ctx context.Context, plane *controlplane.ControlPlane) (err error) {
	operator, err := plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	creator, err := newCreator(ctx, plane, "page")
	if err != nil {
		return err
	}
	role := func(i int) string { return fmt.Sprintf("many.permission.number-%03d.read", i%pageRoles) }
	for i := range pageRoles {
		err := creator.client.Create(ctx, &v1alpha1.ApiRole{
			ObjectMeta: metav1.ObjectMeta{Name: role(i)}, Spec: v1alpha1.ApiRoleSpec{Description: fmt.Sprintf("Read what has the number %d.", i)},
		})
		if err != nil {
			return err
		}
	}
	creator.shape = func(i int, key *v1alpha1.ApiKey) {
		key.Spec.Roles, key.Spec.DisplayName = []string{role(i)}, fmt.Sprintf("Service %d", i)
	}
	_, err = creator.run(ctx, 16, pageKeys)
	return err
}

// pageMeter measures a page that is open in a tab.
type pageMeter struct {
	tab                  *browser.Tab
	paint                []float64
	filtering, searching typing
}

// typing is what a browser tells about its work while somebody types, in milliseconds.
type typing struct{ task, press []float64 }

// observe makes the page note long tasks, and the time from each event to the frame that shows its effect.
const observe = `(window.tasks = [], window.presses = [],
	new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((e) => e.duration))).observe({type: "longtask"}),
	new PerformanceObserver((list) => window.presses.push(...list.getEntries().map((e) => e.duration))).observe({type: "event", durationThreshold: 16}), 1)`

func (m *pageMeter) round() error {
	if err := errors.Join(m.tab.Reload(), m.tab.Until(`document.readyState === "complete" && document.querySelector("#count").innerText === "1000 keys"`)); err != nil {
		return err
	}
	paint, err := m.tab.Value(`performance.getEntriesByType("paint").find((e) => e.name === "first-contentful-paint").startTime`)
	if err != nil {
		return err
	}
	duration, err := strconv.ParseFloat(paint, 64)
	if err != nil {
		return err
	}
	m.paint = append(m.paint, duration)
	if err := m.filtering.measure(m.tab, "#filter", "number-042", `document.querySelector("#count").innerText === "2 of 1000 keys"`); err != nil {
		return err
	}
	if err := errors.Join(m.tab.Click("[data-dialog]"), m.tab.Until(`document.querySelectorAll(".choice").length === 500`)); err != nil {
		return err
	}
	return m.searching.measure(m.tab, "#f-search", "number 123", `document.querySelectorAll(".choice:not([hidden])").length === 1`)
}

// measure types a text into a field, until an expression is true.
func (y *typing) measure(tab *browser.Tab, field, text, until string) error {
	if err := tab.Click(field); err != nil {
		return err
	}
	if _, err := tab.Value(observe); err != nil {
		return err
	}
	if err := errors.Join(tab.Press(text), tab.Until(until)); err != nil {
		return err
	}
	// Browsers report a task some time after its end, but before idle time.
	found, err := tab.Value(`new Promise((done) => requestIdleCallback(() => done([Math.max(0, ...window.tasks), Math.max(0, ...window.presses)])))`)
	if err != nil {
		return err
	}
	var longest [2]float64
	if err := json.Unmarshal([]byte(found), &longest); err != nil {
		return err
	}
	y.task, y.press = append(y.task, longest[0]), append(y.press, longest[1])
	return nil
}
