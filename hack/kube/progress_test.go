package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressCountsPackagesAndEstimates(t *testing.T) {
	p := newProgress()
	packages := make([]listed, 0, 22)
	packages = append(packages, listed{ImportPath: "cached/a"}, listed{ImportPath: "cached/b"})
	for i := range 20 {
		packages = append(packages, listed{ImportPath: fmt.Sprintf("p%d", i), Stale: true})
	}
	p.plan(packages)
	if got, want := p.summary(), "  20 of 22 packages to compile; the rest is in the build cache."; got != want {
		t.Errorf("summary: %q, want %q", got, want)
	}
	if p.take("# some/package") || p.take("cached/a") {
		t.Error("take counts a line that is not a package to compile")
	}
	next := 0
	for _, step := range []struct {
		compile int
		elapsed time.Duration
		want    string
	}{
		{1, 10 * time.Second, "3 of 22 packages, time left unknown; 10 s so far"},
		{1, 20 * time.Second, "4 of 22 packages, time left unknown; 20 s so far"}, // the first tenth is done
		{2, 39 * time.Second, "6 of 22 packages, time left unknown; 39 s so far"}, // too early for an estimate
		// Six packages took the last 60 seconds, so the other twelve take 120.
		{4, 80 * time.Second, "10 of 22 packages, about 2 min 0 s left; 1 min 20 s so far"},
		{12, 3 * time.Minute, "22 of 22 packages, linking; 3 min 0 s so far"},
	} {
		for range step.compile {
			line := fmt.Sprintf("p%d", next)
			if !p.take(line) || p.take(line) {
				t.Errorf("%s does not count exactly once", line)
			}
			next++
		}
		if got := p.text(step.elapsed); got != step.want {
			t.Errorf("%q, want %q", got, step.want)
		}
	}
}

func TestProgressOfDownloads(t *testing.T) {
	p := newProgress()
	before := p.downloadText()
	for _, line := range []string{"go: downloading k8s.io/api v0.37.2", "go: downloading k8s.io/client-go v0.37.2"} {
		if !p.take(line) {
			t.Errorf("take(%q) = false", line)
		}
	}
	if got, want := p.downloadText(), "Downloading Go modules: 2 so far, now k8s.io/client-go v0.37.2"; got != want || got == before {
		t.Errorf("%q, want %q; before it was %q", got, want, before)
	}
}

// spoken records what is written and when.
type spoken struct {
	mu    sync.Mutex
	times []time.Time
	text  strings.Builder
}

// Write implements [io.Writer].
func (s *spoken) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, time.Now())
	return s.text.Write(p)
}

func TestScreenIsNeverSilentForHalfAMinute(t *testing.T) {
	for name, s := range map[string]screen{"terminal": {terminal: true, every: redrawEvery}, "file": {every: lineEvery}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := &spoken{}
				s.out = out
				start := time.Now()
				stop := s.follow(func(elapsed time.Duration) string { return fmt.Sprintf("at %s", elapsed) })
				<-time.After(10 * time.Minute)
				stop()
				last := start
				for _, moment := range append(out.times, time.Now()) {
					if silence := moment.Sub(last); silence > 30*time.Second {
						t.Errorf("no output for %s, from %s after the start", silence, last.Sub(start))
					}
					last = moment
				}
				if lines := strings.Count(out.text.String(), "\n"); (lines > 0) == s.terminal {
					t.Errorf("the output has %d newlines; want none on a terminal and some in a file", lines)
				}
			})
		})
	}
}

func TestTerminalLineIsCut(t *testing.T) {
	out := &spoken{}
	s := &screen{out: out, terminal: true}
	s.draw(strings.Repeat("long ", 100))
	if text := strings.TrimPrefix(out.text.String(), "\r\033[K"); len([]rune(text)) != columns {
		t.Errorf("the line has %d columns, want %d: %q", len([]rune(text)), columns, text)
	}
}
