//go:build unix

package commands

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// pollTime is how long one look at the terminal takes, in milliseconds.
const pollTime = 1000

// awaitHangup waits until a terminal is closed, or ctx ends. It reports whether the terminal is closed. The signal SIGHUP does not reach
// processes that run in the background of a shell.
func awaitHangup(ctx context.Context, terminal any) bool {
	file, ok := terminal.(*os.File)
	if !ok {
		return false
	}
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(file.Fd())}} //nolint:gosec // a file descriptor fits
		n, err := unix.Poll(fds, pollTime)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		if n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
			return true
		}
	}
	return false
}
