package commands

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

func findCommand(s *session) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:        "find [FILE]",
		SuggestFor: []string{"search", "whose", "whois"},
		Short:      "Find out whose token this is",
		Long: `Finds the key of a token. The token is read from a file or from standard input, hashed here, and never sent anywhere.
The exit code is 1 if no key has it.

It needs the right to list apikeys, for all namespaces if possible; with --namespace, for that one.`,
		Example: `  kubectl apikey find leaked.txt

  # Paste the token; it is not shown
  kubectl apikey find`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := s.readToken(cmd.Context(), args)
			if err != nil {
				return err
			}
			cluster, namespace, err := s.open()
			if err != nil {
				return err
			}
			within := ""
			if cmd.Flags().Changed("namespace") {
				within = namespace
			}
			matches, search, err := cluster.Find(cmd.Context(), within, namespace, found.Digest())
			if err != nil {
				return err
			}
			return s.printMatches(matches[found.Digest()], search, output, time.Now())
		},
	}
	addOutput(cmd, &output, formatJSON, formatYAML, formatName, formatWide)
	return cmd
}

func (s *session) printMatches(matches []keys.Match, search keys.Search, output string, now time.Time) error {
	if len(matches) == 0 {
		s.say("%s", notFound(search))
		return errNo
	}
	if output != "" && output != formatWide {
		for i := range matches {
			if err := printObject(s.Out, output, &matches[i].Key); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(s.Out, true, output == formatWide, now)
	for i := range matches {
		if err := t.add(keys.RowOf(&matches[i].Key, now), matches[i].Kind); err != nil {
			return err
		}
	}
	return t.flush()
}

// notFound says that no key has a token.
func notFound(search keys.Search) string {
	switch {
	case search.Narrowed:
		return fmt.Sprintf("No ApiKey of namespace %q has this token. You may not list the keys of other namespaces.", search.Namespace)
	case search.Namespace != "":
		return fmt.Sprintf("No ApiKey of namespace %q has this token.", search.Namespace)
	}
	return "No ApiKey has this token: its key was deleted or got another token, or it was never issued in this cluster."
}
