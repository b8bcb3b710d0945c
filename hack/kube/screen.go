package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// How often progress is shown: a terminal shows it on one line that is redrawn, any other output gets a new
// line each time.
const (
	redrawEvery = 500 * time.Millisecond
	lineEvery   = 25 * time.Second
	// columns is the width that every terminal has at least.
	columns = 79
)

// screen shows messages and progress.
type screen struct {
	out      io.Writer
	terminal bool
	every    time.Duration
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	if err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" {
		return &screen{out: out, terminal: true, every: redrawEvery}
	}
	return &screen{out: out, every: lineEvery}
}

// say prints a line.
func (s *screen) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format+"\n", args...) }

// follow shows the text repeatedly until the returned function is called. Don't call say in between. text
// gets the time since the start.
func (s *screen) follow(text func(elapsed time.Duration) string) (stop func()) {
	start := time.Now()
	ticker := time.NewTicker(s.every)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				if s.terminal {
					_, _ = fmt.Fprint(s.out, "\r\033[K")
				}
				return
			case <-ticker.C:
				s.draw(text(time.Since(start)))
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(done)
		<-stopped
	}
}

func (s *screen) draw(text string) {
	text = "  " + text
	if !s.terminal {
		s.say("%s", text)
		return
	}
	if runes := []rune(text); len(runes) > columns {
		text = string(runes[:columns-1]) + "…"
	}
	_, _ = fmt.Fprint(s.out, "\r\033[K"+text)
}
