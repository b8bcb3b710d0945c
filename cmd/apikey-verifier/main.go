// Command apikey-verifier answers whether a request may pass with the API key that it carries; this package is wiring only, and no `if` about
// keys belongs here.
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
		fmt.Fprintln(os.Stderr, "apikey-verifier:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	options := &options{}
	cmd := &cobra.Command{
		Use:   "apikey-verifier",
		Short: "Answers gateways whether a request may pass with the API key that it carries",
		Long: `apikey-verifier watches ApiKey objects and answers gateways, for each request: may this token, from this address, do this?

  HTTP   /auth         forward-auth: nginx auth_request, ingress-nginx, Traefik, Caddy, HAProxy
         /tokenreview  TokenReview webhook: kube-apiserver, kube-rbac-proxy
         /introspect   OAuth 2.0 Token Introspection (RFC 7662), for those who may POST this path
  gRPC   Envoy's external authorization (ext_authz v3), and gRPC health

It talks to the cluster of --kubeconfig, of the variable KUBECONFIG, or of the pod that it runs in. It needs no more than the
permissions in config/verifier; it may read no Secret.`,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := options.settings(cmd.Flags())
			if err != nil {
				return err
			}
			return run(cmd.Context(), options, settings, options.Start(cmd.ErrOrStderr()))
		},
	}
	options.addFlags(cmd.Flags())
	return cmd
}
