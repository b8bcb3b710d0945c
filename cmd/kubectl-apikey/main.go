// Command kubectl-apikey is a plugin of kubectl for people who use API keys. The command only connects the process to package commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/apikey-operator/apikey-operator/internal/cli/commands"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	// Writing to a closed pipe must be an error, not the end of the process: the verb then says where the token is.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		received := <-signals
		cancel(commands.Interruption{Signal: received.String()})
		signal.Stop(signals) // a second signal ends the process at once
	}()
	return commands.Main(ctx, os.Args[1:], commands.Standard())
}
