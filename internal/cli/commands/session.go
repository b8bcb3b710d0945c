package commands

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/cli/scan"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/version"
)

// session is what all verbs share: the streams and the flags of kubectl.
type session struct {
	genericiooptions.IOStreams

	config *genericclioptions.ConfigFlags
	yes    bool
}

// restConfig returns the configuration of the cluster that the flags select.
func (s *session) restConfig() (*rest.Config, error) {
	if s.unconfigured() {
		return nil, wrong("no cluster is configured: set KUBECONFIG or --kubeconfig to a kubeconfig file")
	}
	config, err := s.config.ToRESTConfig()
	if err != nil {
		return nil, wrong("read the kubeconfig: %w", err)
	}
	config = rest.CopyConfig(config)
	config.UserAgent = "kubectl-apikey/" + version.String()
	config.QPS = -1 // API Priority and Fairness limits
	config.WarningHandler = rest.NewWarningWriter(s.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
	return config, nil
}

// unconfigured reports whether nothing names a cluster. The default of client-go would be localhost:8080.
func (s *session) unconfigured() bool {
	raw, err := s.config.ToRawKubeConfigLoader().RawConfig()
	return err == nil && len(raw.Clusters) == 0 && *s.config.APIServer == "" &&
		os.Getenv("KUBERNETES_MASTER") == "" && os.Getenv("KUBERNETES_SERVICE_HOST") == ""
}

// cluster connects to the cluster.
func (s *session) cluster() (*keys.Cluster, error) {
	config, err := s.restConfig()
	if err != nil {
		return nil, err
	}
	return keys.Connect(config)
}

// namespace returns the namespace of --namespace, or of the context.
func (s *session) namespace() (string, error) {
	name, _, err := s.config.ToRawKubeConfigLoader().Namespace()
	return name, err
}

// open returns the cluster and the namespace, which most verbs need.
func (s *session) open() (*keys.Cluster, string, error) {
	cluster, err := s.cluster()
	if err != nil {
		return nil, "", err
	}
	namespace, err := s.namespace()
	return cluster, namespace, err
}

// println writes a line to standard output.
func (s *session) println(line string) error {
	_, err := fmt.Fprintln(s.Out, line)
	return err
}

// say writes a message for people to standard error. A failure to do so changes nothing.
func (s *session) say(format string, args ...any) {
	_, _ = fmt.Fprintln(s.ErrOut, cleanLines(fmt.Sprintf(format, args...)))
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// addYes adds the flag --yes to a verb that asks.
func (s *session) addYes(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&s.yes, "yes", "y", false, "answer every question with yes")
}

// confirm asks a question. Without a terminal to ask on, it refuses unless --yes is given.
func (s *session) confirm(ctx context.Context, question string) error {
	if s.yes {
		return nil
	}
	if !isTerminal(s.In) {
		return wrong("%s Standard input is not a terminal, so the question can't be asked: add --yes", question)
	}
	_, _ = fmt.Fprint(s.ErrOut, question+" [y/N] ")
	answer, err := readLine(ctx, s.In)
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &exitError{exitNo, errors.New("nothing was changed")}
}

// readLine reads a line unless ctx ends before.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	line, err := bufio.NewReader(&interruptible{ctx, r}).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return line, err
}

// interruptible is a reader that stops once a context is done, also while it waits for a pipe or a terminal.
type interruptible struct {
	ctx context.Context
	io.Reader
}

// Read implements [io.Reader]. After it has stopped, the buffer may still be written to.
func (r *interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	read := make(chan result, 1)
	go func() {
		n, err := r.Reader.Read(p)
		read <- result{n, err}
	}()
	select {
	case <-r.ctx.Done():
		return 0, context.Cause(r.ctx)
	case r := <-read:
		return r.n, r.err
	}
}

// maxTokenFile limits what is read where a single token is expected.
const maxTokenFile = 64 << 10

// readToken reads a token from a file, or from standard input for "-" or no name. On a terminal it asks, and what is typed is not shown.
func (s *session) readToken(ctx context.Context, args []string) (token.Token, error) {
	text, err := s.readSecretText(ctx, args)
	if err != nil {
		return token.Token{}, err
	}
	found, err := token.Parse(strings.TrimSpace(text))
	if err != nil {
		return token.Token{}, &exitError{exitRefused, fmt.Errorf("%w. To find tokens within a text, run: kubectl apikey scan --find FILE", keys.ErrNoToken)}
	}
	return found, nil
}

func (s *session) readSecretText(ctx context.Context, args []string) (string, error) {
	in := s.In
	switch {
	case len(args) > 0 && args[0] != "-":
		file, err := os.Open(args[0])
		if err != nil {
			// Without the name, in case it is a secret.
			return "", wrong("the file with the token can't be read: %w", cause(err))
		}
		defer func() { _ = file.Close() }()
		in = file
	case isTerminal(in):
		return s.typeSecret(ctx)
	}
	text, err := io.ReadAll(io.LimitReader(scan.Unicode(&interruptible{ctx, in}), maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", cause(err))
	}
	return string(text), nil
}

// cause returns an error of the file system without the path.
func cause(err error) error {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// question asks for a token on a terminal.
const question = "Token (it is not shown): "

// typeSecret lets somebody type or paste a token on a terminal. The terminal shows nothing of it from the moment the question is seen:
// echo ends before the question, unlike with term.ReadPassword after a prompt, which shows what is pasted in between.
func (s *session) typeSecret(ctx context.Context) (string, error) {
	fd := int(s.In.(*os.File).Fd()) //nolint:forcetypeassert // isTerminal has checked it
	before, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer func() { _ = term.Restore(fd, before) }()
	text, err := term.NewTerminal(terminal{&interruptible{ctx, s.In}, s.ErrOut}, "").ReadPassword(question)
	if err == nil {
		return text, nil
	}
	if errors.Is(err, io.EOF) {
		err = Interruption{Signal: "interrupt"} // Ctrl-C makes no signal on a raw terminal; Ctrl-D has the same effect
	}
	_, _ = fmt.Fprint(s.ErrOut, "\r\n") // the error begins on a line of its own
	return "", err
}

// terminal joins the two streams of a terminal.
type terminal struct {
	io.Reader
	io.Writer
}

// addTimeout adds the flag --timeout.
func addTimeout(cmd *cobra.Command, timeout *time.Duration, meaning string) {
	cmd.Flags().DurationVar(timeout, "timeout", keys.Timeout, meaning)
}
