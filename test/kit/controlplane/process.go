package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopTimeout is how long [Process.Stop] waits. The product's processes drain in less time.
const stopTimeout = time.Minute

// readyInterval is the time between two attempts to reach a process that starts. It is short because benchmarks measure starts.
const readyInterval = 5 * time.Millisecond

// Process is a running program.
type Process struct {
	name    string
	command *exec.Cmd
	started time.Time
	exited  chan error
}

// StartProcess starts a command in a process group of its own, so that Ctrl-C in a terminal doesn't stop all processes at once. Its
// standard output and standard error go to out.
func StartProcess(command *exec.Cmd, out io.Writer) (*Process, error) {
	p := &Process{name: filepath.Base(command.Path), command: command, exited: make(chan error, 1)}
	command.Stdout, command.Stderr = out, out
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.started = time.Now()
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s (did you run `make build`?): %w", p.name, err)
	}
	go func() { p.exited <- command.Wait() }()
	return p, nil
}

// Started returns when the process was started.
func (p *Process) Started() time.Time { return p.started }

// Pid returns the process's id.
func (p *Process) Pid() int { return p.command.Process.Pid }

// Wait waits until the process has ended and returns what it exited with.
func (p *Process) Wait() error {
	err := <-p.exited
	p.exited <- err
	return err
}

// Signal sends the process a signal, which may come too late.
func (p *Process) Signal(signal syscall.Signal) { _ = p.command.Process.Signal(signal) }

// Stop asks the process to finish and returns what it exited with.
func (p *Process) Stop() error {
	_ = p.command.Process.Signal(syscall.SIGTERM) // it may have exited already
	select {
	case err := <-p.exited:
		p.exited <- err
		return err
	case <-time.After(stopTimeout):
		_ = p.command.Process.Kill()
		return fmt.Errorf("%s did not stop within %s of SIGTERM", p.name, stopTimeout)
	}
}

// WaitHTTP waits until a URL answers 200. If that takes longer than three minutes, WaitHTTP stops the process and returns an error.
func (p *Process) WaitHTTP(ctx context.Context, url string) error {
	return p.wait(ctx, func(ctx context.Context) bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// WaitListening waits until the process listens on an address of a network such as tcp or unix. If that takes longer than three minutes,
// WaitListening stops the process and returns an error.
func (p *Process) WaitListening(ctx context.Context, network, address string) error {
	return p.wait(ctx, func(ctx context.Context) bool {
		var dialer net.Dialer
		connection, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return false
		}
		return connection.Close() == nil
	})
}

func (p *Process) wait(ctx context.Context, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for !ready(ctx) {
		select {
		case err := <-p.exited:
			p.exited <- err
			return fmt.Errorf("%s exited before it was ready: %w", p.name, err)
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s is not ready: %w", p.name, ctx.Err()), p.Stop())
		case <-time.After(readyInterval):
		}
	}
	return nil
}
