//go:build !unix

package commands

import "context"

// awaitHangup waits until ctx ends. On these systems, processes end with their terminal.
func awaitHangup(ctx context.Context, _ any) bool {
	<-ctx.Done()
	return false
}
