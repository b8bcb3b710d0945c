// Command apikey-operator issues API keys and maintains them until they expire. The command only connects its parts:
// decisions about keys belong in the packages under controllers and internal.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/apikey-operator/apikey-operator/internal/version"
)

func main() {
	if err := command().ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "apikey-operator:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	options := defaultOptions()
	cmd := &cobra.Command{
		Use:   "apikey-operator",
		Short: "Issue API keys that are declared as ApiKey objects",
		Long: `apikey-operator watches ApiKey objects. For each object it mints a token, delivers the token once in a Secret, keeps
only the digest in the object's status, and cleans up when the key expires.

It connects to the cluster of --kubeconfig, of the environment variable KUBECONFIG, or of the pod that it runs in. It
needs only the permissions in config/rbac. It reads no Secret while it issues a key without failures.`,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := options.validate(cmd.Flags()); err != nil {
				return err
			}
			return run(cmd.Context(), options, options.Start(cmd.ErrOrStderr()))
		},
	}
	options.addFlags(cmd.Flags())
	return cmd
}
