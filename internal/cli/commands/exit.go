package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

// Exit codes, as docs/kubectl-apikey.md lists them.
const (
	exitDone        = 0
	exitNo          = 1
	exitRefused     = 2
	exitFailed      = 3
	exitTimeout     = 4
	exitUnsure      = 5
	exitInterrupted = 130
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

// Error implements error.
func (e *exitError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *exitError) Unwrap() error { return e.err }

// wrong returns an error about the command line or about what it asks for: nothing was done.
func wrong(format string, args ...any) error {
	return &exitError{exitRefused, fmt.Errorf(format, args...)}
}

// errNo says that the answer is no. What it says is on standard output already.
var errNo = &exitError{exitNo, errors.New("")}

// errTokenLost says that standard output did not take a token.
var errTokenLost = errors.New("standard output did not take the token")

// Interruption is the cause of a context that a signal canceled.
type Interruption struct{ Signal string }

// Error implements error.
func (i Interruption) Error() string { return "interrupted (" + i.Signal + ")" }

// report prints an error and returns the exit code for it.
func report(ctx context.Context, err error, w io.Writer) int {
	if err == nil {
		return exitDone
	}
	var interrupted Interruption
	if !errors.As(err, &interrupted) && errors.As(context.Cause(ctx), &interrupted) {
		err = fmt.Errorf("%w: %w", interrupted, err)
	}
	if errors.Is(err, syscall.EPIPE) && !errors.Is(err, errTokenLost) {
		return exitDone // whoever reads the output has seen enough, as with head
	}
	if text := describe(err); text != "" {
		_, _ = fmt.Fprintln(w, "error: "+cleanLines(text)) // there is nowhere else to say it
	}
	var exit *exitError
	var late *keys.TimeoutError
	switch {
	case interrupted != Interruption{}:
		return exitInterrupted
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &late):
		return exitTimeout
	}
	return exitFailed
}

// describe adds to an error what to do about it.
func describe(err error) string {
	var unreachable *url.Error
	var network net.Error
	switch {
	case apierrors.IsUnauthorized(err):
		return fmt.Sprintf("the API server does not know you: %v; log in again, or choose another --context", err)
	case noSuchKind(err):
		return fmt.Sprintf("%v: this cluster has no ApiKeys; install apikey-operator, or choose another --context", err)
	case errors.As(err, &unreachable) && errors.As(err, &network):
		return fmt.Sprintf("the API server can't be reached: %v; check --context and --kubeconfig", err)
	}
	return err.Error()
}

// noSuchKind reports whether the API server does not serve the kind that was asked for. The answer for an object that does not exist names
// the object.
func noSuchKind(err error) bool {
	var status apierrors.APIStatus
	return apierrors.IsNotFound(err) && errors.As(err, &status) &&
		(status.Status().Details == nil || status.Status().Details.Name == "")
}
