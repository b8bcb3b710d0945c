package commands

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

func checkCommand(s *session) *cobra.Command {
	var roles []string
	var from string
	cmd := &cobra.Command{
		Use:        "check --role ROLE [FILE]",
		SuggestFor: []string{"verify"},
		Short:      "Ask whether a verifier would accept a token, and why",
		Long: `Decides about a token with the verifier's own code, on the objects as they are in the cluster now. The token is read
from a file or from standard input, and never sent anywhere. --role and --namespace are what the gateway's route
requires. What a verifier adds by its own flags is not known here, such as its prefixes and default roles.

The exit code is 0 if the token is accepted, 1 if it is refused, and 5 if you lack a right without which nobody can tell.
It needs the right to list apikeys and apiroles.`,
		Example: `  kubectl apikey check --role org.permission.order.read shopper.token

  # From a network, on a route that pins a namespace
  kubectl apikey check --role org.permission.order.read --namespace shop --from 10.20.1.7 shopper.token`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := keys.Question{}
			if from != "" {
				address, err := netip.ParseAddr(from)
				if err != nil {
					return wrong("--from=%s: must be an IP address, such as 10.20.1.7", from)
				}
				q.From = address
			}
			for _, role := range roles {
				if err := access.ValidateRole(role); err != nil {
					return wrong("--role=%s: %w", role, err)
				}
			}
			namespace, err := s.namespace()
			if err != nil {
				return err
			}
			var pinned []string
			if cmd.Flags().Changed("namespace") {
				pinned = []string{namespace}
			}
			q.Route = verify.NewRoute(roles, pinned)
			if q.Token, err = s.readToken(cmd.Context(), args); err != nil {
				return err
			}
			cluster, err := s.cluster()
			if err != nil {
				return err
			}
			answer, err := cluster.Check(cmd.Context(), q, namespace, time.Now())
			if err != nil {
				return err
			}
			return s.printAnswer(answer, q)
		},
	}
	cmd.Flags().StringSliceVar(&roles, "role", nil, "a role that the route requires; repeat it for several")
	cmd.Flags().StringVar(&from, "from", "", "the client address; absent means unknown, which keys with networks refuse")
	_ = cmd.RegisterFlagCompletionFunc("role", s.completeRoles)
	return cmd
}

func (s *session) printAnswer(a keys.Answer, q keys.Question) error {
	if a.Unsure != "" {
		if err := s.println("Can't tell: " + a.Unsure); err != nil {
			return err
		}
		return &exitError{exitUnsure, errNo.err}
	}
	text := a.Result.String() + ": " + a.Why
	if a.Key != nil {
		text = fmt.Sprintf("%s\nThe token belongs to %s/%s.", text, a.Key.Namespace, a.Key.Name)
	}
	if err := s.println(text); err != nil {
		return err
	}
	if a.Result == verify.Allowed && len(q.Route.Roles) == 0 && q.Route.Namespace == "" {
		s.say("Without --role or --namespace every valid token passes. Verifiers refuse such a route unless they run with --require-scope=false.")
	}
	if a.Result != verify.Allowed {
		return errNo
	}
	return nil
}
