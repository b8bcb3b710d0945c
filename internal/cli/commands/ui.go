package commands

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/internal/page"
	"github.com/apikey-operator/apikey-operator/internal/page/gate"
)

type uiOptions struct {
	port      int
	noBrowser bool
}

func uiCommand(s *session) *cobra.Command {
	o := &uiOptions{}
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Open a page with your keys in the browser",
		Long: `Serves a page on 127.0.0.1 that shows keys and adds, rotates, suspends and deletes them. It acts with your own rights in
the cluster of your kubeconfig. Nothing is installed in the cluster.

The page is for one browser: its link works once, and a second use of the link ends it. It also ends with Ctrl-C, with
the terminal, or when nobody has used it for an hour.

It needs the rights to list and watch apikeys. What else it can do depends on your rights.`,
		Example: `  kubectl apikey ui

  # Print the link, for a browser that you open yourself
  kubectl apikey ui --no-browser`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), s) },
	}
	cmd.Flags().IntVar(&o.port, "port", 0, "port on 127.0.0.1; 0 means a random one")
	cmd.Flags().BoolVar(&o.noBrowser, "no-browser", false, "print the link in place of opening a browser")
	return cmd
}

func (o *uiOptions) run(ctx context.Context, s *session) error {
	if o.port < 0 || o.port > 65535 {
		return wrong("--port=%d: must be a port from 1 to 65535, or 0 for a random one", o.port)
	}
	cluster, namespace, err := s.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if isTerminal(s.In) {
		go func() {
			if awaitHangup(ctx, s.In) {
				cancel(Interruption{"the terminal was closed"})
			}
		}()
	}
	remove := func() {}
	defer func() { remove() }()
	err = page.Serve(ctx, page.Options{
		Cluster: cluster, Namespace: namespace, Chosen: *s.config.Namespace != "", Context: s.contextName(), Port: o.port, Explain: describe,
		Opened: func(g *gate.Gate) (err error) {
			remove, err = o.open(ctx, s, g)
			return err
		},
	})
	if errors.Is(err, page.ErrEnded) {
		return &exitError{exitFailed, fmt.Errorf("%w; to go on, run kubectl apikey ui again", err)}
	}
	if err == nil {
		s.say("The page has ended.") // Ctrl-C is how it ends
	}
	return err
}

// contextName returns the name of the context that the flags select, or an empty text.
func (s *session) contextName() string {
	if *s.config.Context != "" {
		return *s.config.Context
	}
	raw, err := s.config.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return ""
	}
	return raw.CurrentContext
}

// launchTime is how long a browser may take to read the file that opens the page.
const launchTime = time.Minute

// open opens the page in a browser, or prints its link. remove deletes what it needs for that.
func (o *uiOptions) open(ctx context.Context, s *session, g *gate.Gate) (remove func(), err error) {
	if o.noBrowser {
		s.say("Open this link in your browser. It works once. Ctrl-C ends the page.")
		return func() {}, s.println(g.Link())
	}
	file, remove, err := g.Launcher()
	if err != nil {
		return func() {}, err
	}
	name, args := browser(file)
	command := exec.CommandContext(ctx, name, args...) //nolint:gosec // the browser of the user
	command.WaitDelay = time.Second
	if err := command.Start(); err != nil {
		s.say("No browser can be opened (%v). Open this link in your browser. It works once. Ctrl-C ends the page.", err)
		return remove, s.println(g.Link())
	}
	go func() {
		if err := command.Wait(); err != nil && ctx.Err() == nil {
			s.say("The browser could not be opened (%v): run kubectl apikey ui --no-browser.", err)
		}
	}()
	go func() {
		select {
		case <-ctx.Done():
		case <-time.After(launchTime):
		}
		remove()
	}()
	s.say("The page with your keys opens in your browser. Ctrl-C ends it. If no browser opens, use --no-browser.")
	return remove, nil
}

// browser returns the command that opens a file in the user's browser.
func browser(file string) (name string, args []string) {
	switch runtime.GOOS {
	case "darwin":
		return "open", []string{file}
	case "windows":
		return "rundll32", []string{"url.dll,FileProtocolHandler", file}
	}
	return "xdg-open", []string{file}
}
