// Package commands is the command line of kubectl apikey: flags, questions, tables and exit codes, one file for each verb. What the verbs do
// to keys is in package keys. To add a verb, write a function that returns its command, and add it to verbs.
package commands

import (
	"context"
	"flag"
	"io"
	"os"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/apikey-operator/apikey-operator/internal/version"
)

// verbs are the commands, in the order in which the help lists them.
var verbs = []func(*session) *cobra.Command{
	createCommand, listCommand, describeCommand, rotateCommand, revokeCommand, suspendCommand, resumeCommand,
	findCommand, scanCommand, checkCommand, rolesCommand, backupCommand, restoreCommand, uiCommand,
	versionCommand,
}

// Main runs the command line and returns the exit code of the process.
func Main(ctx context.Context, args []string, streams genericiooptions.IOStreams) int {
	err := refuseTokens(args)
	if err == nil {
		root := Root(streams)
		root.SetArgs(args)
		err = root.ExecuteContext(ctx)
	}
	return report(ctx, err, streams.ErrOut)
}

// Root returns the command kubectl apikey with all verbs.
func Root(streams genericiooptions.IOStreams) *cobra.Command {
	s := &session{IOStreams: streams, config: genericclioptions.NewConfigFlags(true)}
	root := &cobra.Command{
		Use:   "kubectl-apikey",
		Short: "Create, find and revoke API keys",
		Long: `kubectl apikey does with API keys what the API keys page of a product does. It acts with your own rights in the
cluster of your kubeconfig. A token is printed once, when its key is created.`,
		Example: `  # Create a key for 90 days, and print its token once
  kubectl apikey create shopper --role org.permission.order.read --expires 90d

  # See your keys, and whose token a file holds
  kubectl apikey list
  kubectl apikey find leaked.txt

  # End a key
  kubectl apikey revoke shopper`,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl apikey"},
		Version:           version.String(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := ""
			if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
				hint = "; did you mean " + similar[0] + "?"
			}
			return wrong("there is no verb %q%s; see kubectl apikey --help", args[0], hint)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cobra.EnableCommandSorting = false // the order of verbs
	root.SuggestionsMinimumDistance = 2
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	root.SetIn(streams.In)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrong("%w", err) })
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(helpTemplate)
	s.config.AddFlags(root.PersistentFlags())
	addVerbosity(root.PersistentFlags())
	ctrl.SetLogger(logr.Discard()) // controller-runtime's client complains without one
	for _, verb := range verbs {
		cmd := verb(s)
		cmd.Args = usageError(cmd.Args)
		root.AddCommand(cmd)
	}
	root.AddCommand(optionsCommand(root))
	s.completeNamespaces(root)
	return root
}

// addVerbosity adds -v, as kubectl has it.
func addVerbosity(flags *pflag.FlagSet) {
	all := flag.NewFlagSet("klog", flag.ContinueOnError)
	all.SetOutput(io.Discard)
	klog.InitFlags(all)
	v := all.Lookup("v")
	v.Usage = "verbosity of the log, from 0 to 10; bodies of requests about Secrets are never logged"
	flags.AddGoFlag(v)
}

// usageError marks the errors of a check of arguments as mistakes in the command line.
func usageError(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return wrong("%w; see %s --help", err, cmd.CommandPath())
		}
		return nil
	}
}

// helpTemplate shows an example first, and leaves the flags of kubectl out.
const helpTemplate = `{{with .Example}}Examples:
{{. | trimTrailingWhitespaces}}

{{end}}{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}Usage:
  {{if .HasParent}}{{.UseLine}}{{else}}{{.CommandPath}} VERB{{end}}
{{if .HasAvailableSubCommands}}
Verbs:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasParent}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsagesWrapped 110 | trimTrailingWhitespaces}}
{{end}}{{end}}
kubectl's flags such as --namespace and --context work too: see "kubectl apikey options".
{{if not .HasParent}}Use "kubectl apikey VERB --help" for more about a verb.
{{end}}`

// optionsCommand lists the flags of kubectl.
func optionsCommand(root *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "options",
		Short: "List the flags of kubectl that every verb takes",
		Args:  usageError(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), root.PersistentFlags().FlagUsagesWrapped(110))
			return err
		},
	}
	return cmd
}

// versionCommand prints the version of this program.
func versionCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this command",
		Example: "  kubectl apikey version",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return s.println(version.String()) },
	}
}

// Standard returns the streams of the process.
func Standard() genericiooptions.IOStreams {
	return genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
}
