package commands

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/gitops"
)

func suspendCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:        "suspend NAME...",
		SuggestFor: []string{"disable", "pause"},
		Short:      "Turn keys off for a while; resume turns them on again",
		Long: `Suspends keys: verifiers refuse their tokens as fast as those of deleted keys. The tokens stay the same, and work
again once the keys are resumed. Suspended keys still expire.

It needs the rights to get and patch apikeys. Whoever has them may resume a key, too.`,
		Example: `  kubectl apikey suspend shopper
  kubectl apikey resume shopper`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: s.completeKeys(true),
		RunE:              func(cmd *cobra.Command, args []string) error { return s.setSuspended(cmd.Context(), args, true) },
	}
}

func resumeCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:        "resume NAME...",
		SuggestFor: []string{"enable", "unsuspend"},
		Short:      "Turn suspended keys on again, with the same tokens",
		Long: `Resumes keys that were suspended: verifiers accept their tokens again.

It needs the rights to get and patch apikeys.`,
		Example:           "  kubectl apikey resume shopper",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: s.completeKeys(true),
		RunE:              func(cmd *cobra.Command, args []string) error { return s.setSuspended(cmd.Context(), args, false) },
	}
}

func (s *session) setSuspended(ctx context.Context, names []string, suspended bool) error {
	cluster, namespace, err := s.open()
	if err != nil {
		return err
	}
	all, err := getAll(ctx, cluster, namespace, names)
	if err != nil {
		return err
	}
	for _, key := range all {
		if err := s.setOne(ctx, cluster, key, suspended); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) setOne(ctx context.Context, cluster *keys.Cluster, key *v1alpha1.ApiKey, suspended bool) error {
	done := "resumed"
	if suspended {
		done = "suspended"
	}
	if key.IsSuspended() == suspended {
		return s.println(nameOf(key) + " was " + done + " already")
	}
	if key.IsExpired() {
		s.say("%s/%s has expired, and is refused in any case.", key.Namespace, key.Name)
	}
	changed, err := cluster.SetSuspended(ctx, key, suspended)
	if err != nil {
		return err
	}
	if tool := gitops.DeclaredBy(changed.Labels, changed.Annotations); tool != "" {
		s.say("%s manages %s/%s. If it sets spec.suspend, it will win: change it there.", tool, key.Namespace, key.Name)
	}
	return s.println(fmt.Sprintf("%s %s", nameOf(changed), done))
}
