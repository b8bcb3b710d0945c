package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The first tenth of the packages is small and quick, and no measure for the rest: an estimate goes by what came after it, and is given once
// so much time has passed since.
const (
	leadShare     = 10
	estimateAfter = 20 * time.Second
)

// progress is how far the go command is, by what it says: a line for each module that it downloads, and for each package that it begins
// to compile.
type progress struct {
	mu sync.Mutex
	// modules downloaded so far, and the last of them.
	modules int
	module  string
	// todo has the packages that are still to be compiled.
	todo map[string]bool
	// all is the number of packages, stale of those that the build cache did not have.
	all, stale int
	// led is when the first tenth was compiled, and ledTodo how many packages were left then.
	led     time.Duration
	ledTodo int
}

func newProgress() *progress { return &progress{todo: map[string]bool{}} }

// plan sets what there is to do. A package that the build cache has counts as done.
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

// take reads a line, and tells whether it was about progress.
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

// summary tells what there is to do.
func (p *progress) summary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.todo) == 0:
		return "  All of it is in the build cache, and is linked."
	case p.stale == p.all:
		return fmt.Sprintf("  %d packages are to be compiled.", p.all)
	default:
		return fmt.Sprintf("  %d of %d packages are to be compiled; the build cache has the rest.", len(p.todo), p.all)
	}
}

// downloadText tells of the modules.
func (p *progress) downloadText() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.modules == 0 {
		return "Looking at what there is to compile"
	}
	return fmt.Sprintf("Downloading Go modules: %d so far, now %s", p.modules, p.module)
}

// text tells how many packages are compiled and how long the rest takes, elapsed after the start.
func (p *progress) text(elapsed time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.todo) == 0 {
		return fmt.Sprintf("%d of %[1]d packages, linking; %s so far", p.all, minutes(elapsed))
	}
	if p.ledTodo == 0 && (p.stale-len(p.todo))*leadShare >= p.stale {
		p.led, p.ledTodo = elapsed, len(p.todo)
	}
	left := "time left not known yet"
	if done := p.ledTodo - len(p.todo); done > 0 && elapsed-p.led >= estimateAfter {
		left = fmt.Sprintf("about %s left", minutes((elapsed-p.led)*time.Duration(len(p.todo))/time.Duration(done)))
	}
	return fmt.Sprintf("%d of %d packages, %s; %s so far", p.all-len(p.todo), p.all, left, minutes(elapsed))
}

// minutes is a duration as people say it.
func minutes(d time.Duration) string {
	d = d.Round(time.Second)
	if d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// counter counts bytes.
type counter struct{ atomic.Int64 }

// Write counts.
func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}

// text tells how much of a download is here. A length of -1 is not known.
func (c *counter) text(length int64) string {
	const mb = 1e6
	if length < 0 {
		return fmt.Sprintf("%.0f MB", float64(c.Load())/mb)
	}
	return fmt.Sprintf("%.0f of %.0f MB", float64(c.Load())/mb, float64(length)/mb)
}
