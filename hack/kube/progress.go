package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The first tenth of the packages is small and compiles quickly, so the estimate is based on what follows it.
// It is shown only after estimateAfter.
const (
	leadShare     = 10
	estimateAfter = 20 * time.Second
)

// progress measures the progress of the go command by its output: a line for each module that it downloads
// and for each package that it begins to compile.
type progress struct {
	mu sync.Mutex
	// modules is the number of downloaded modules, module the last of them.
	modules int
	module  string
	// todo has the packages that have not been compiled yet.
	todo map[string]bool
	// all is the number of packages, stale of those that weren't in the build cache.
	all, stale int
	// led is when the first tenth was compiled. ledTodo is how many packages were left at that time.
	led     time.Duration
	ledTodo int
}

func newProgress() *progress { return &progress{todo: map[string]bool{}} }

// plan sets the packages. A package in the build cache counts as compiled.
func (p *progress) plan(packages []listed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = len(packages)
	for _, one := range packages {
		if one.Stale {
			p.todo[one.ImportPath] = true
		}
	}
	p.stale = len(p.todo)
}

// take processes a line of output and reports whether it was about progress.
func (p *progress) take(line string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if module, ok := strings.CutPrefix(line, "go: downloading "); ok {
		p.modules++
		p.module = module
		return true
	}
	known := p.todo[line]
	delete(p.todo, line)
	return known
}

// summary returns how much there is to compile.
func (p *progress) summary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.todo) == 0:
		return "  All packages are in the build cache. Linking."
	case p.stale == p.all:
		return fmt.Sprintf("  %d packages to compile.", p.all)
	default:
		return fmt.Sprintf("  %d of %d packages to compile; the rest is in the build cache.", len(p.todo), p.all)
	}
}

// downloadText returns the progress of downloading modules.
func (p *progress) downloadText() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.modules == 0 {
		return "Listing packages"
	}
	return fmt.Sprintf("Downloading Go modules: %d so far, now %s", p.modules, p.module)
}

// text returns the number of compiled packages and an estimate of the remaining time. elapsed is the time
// since the start.
func (p *progress) text(elapsed time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.todo) == 0 {
		return fmt.Sprintf("%d of %[1]d packages, linking; %s so far", p.all, minutes(elapsed))
	}
	if p.ledTodo == 0 && (p.stale-len(p.todo))*leadShare >= p.stale {
		p.led, p.ledTodo = elapsed, len(p.todo)
	}
	left := "time left unknown"
	if done := p.ledTodo - len(p.todo); done > 0 && elapsed-p.led >= estimateAfter {
		left = fmt.Sprintf("about %s left", minutes((elapsed-p.led)*time.Duration(len(p.todo))/time.Duration(done)))
	}
	return fmt.Sprintf("%d of %d packages, %s; %s so far", p.all-len(p.todo), p.all, left, minutes(elapsed))
}

// minutes returns a duration in minutes and seconds.
func minutes(d time.Duration) string {
	d = d.Round(time.Second)
	if d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// counter counts bytes.
type counter struct{ atomic.Int64 }

// Write implements [io.Writer].
func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}

// text returns the progress of a download. A length of -1 is unknown.
func (c *counter) text(length int64) string {
	const mb = 1e6
	if length < 0 {
		return fmt.Sprintf("%.0f MB", float64(c.Load())/mb)
	}
	return fmt.Sprintf("%.0f of %.0f MB", float64(c.Load())/mb, float64(length)/mb)
}
