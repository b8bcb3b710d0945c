// Command apikey-verifier tells gateways whether a request with an API key is allowed. The command only connects its parts:
// decisions about keys belong in the packages under internal.
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
		Short: "Tell gateways whether requests with an API key are allowed",
		Long: `apikey-verifier watches ApiKey objects. For each request, it tells a gateway whether the token is valid, may be used from
the client address, and has the roles that the route requires. It serves:

  HTTP   /auth         forward-auth: nginx auth_request, ingress-nginx, Traefik, Caddy, HAProxy
         /tokenreview  TokenReview webhook: kube-apiserver, kube-rbac-proxy
         /introspect   OAuth 2.0 Token Introspection (RFC 7662), for callers whose RBAC allows post on this path
  gRPC   Envoy's external authorization (ext_authz v3), and gRPC health

It connects to the cluster of --kubeconfig, of the environment variable KUBECONFIG, or of the pod that it runs in. It
needs only the permissions in config/verifier, which do not include Secrets.`,
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
