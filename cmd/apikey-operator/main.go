// Command apikey-operator issues, maintains and expires ApiKeys; this package is wiring only.
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
		Short: "Issues API keys that are declared as ApiKey objects",
		Long: `apikey-operator watches ApiKey objects. For each it mints a token, delivers it once in a Secret, keeps only the
digest in the object's status, and cleans up when the key expires.

It talks to the cluster of --kubeconfig, of the variable KUBECONFIG, or of the pod that it runs in. It needs no more than the
permissions in config/rbac, and reads no Secret on the way from an ApiKey to its token.`,
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
