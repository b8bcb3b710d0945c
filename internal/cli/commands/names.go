package commands

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

// completionTimeout is how long a completion may take. Without an answer, the shell offers nothing.
const completionTimeout = 3 * time.Second

type completion = func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective)

// completeKeys offers the names of the keys in the namespace: one, or any number that were not given yet.
func (s *session) completeKeys(many bool) completion {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && !many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cluster, namespace, err := s.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		given := map[string]bool{}
		for _, arg := range args {
			given[arg] = true
		}
		var names []cobra.Completion
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		// What has come before a failure is still useful.
		_ = cluster.EachPage(ctx, namespace, "", func(page []v1alpha1.ApiKey) error {
			for i := range page {
				if !given[page[i].Name] {
					names = append(names, cobra.CompletionWithDesc(page[i].Name, clean(page[i].Spec.DisplayName)))
				}
			}
			return nil
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// plainWord matches what every shell takes literally. Whoever creates a key writes its attributes, and the completion script of an older
// kubectl lets bash expand what is offered: $(command) would run.
var plainWord = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z@%+=:,./_-]*$`)

// completeOwners offers the owners of the keys in the namespace, except for those that a shell might expand.
func (s *session) completeOwners(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	cluster, namespace, err := s.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	owners := map[string]bool{}
	// What has come before a failure is still useful.
	_ = cluster.EachPage(ctx, namespace, "", func(page []v1alpha1.ApiKey) error {
		for i := range page {
			if owner := page[i].Attributes()[keys.AttributeOwner]; plainWord.MatchString(owner) {
				owners[owner] = true
			}
		}
		return nil
	})
	return slices.Sorted(maps.Keys(owners)), cobra.ShellCompDirectiveNoFileComp
}

// completeRoles offers the roles of the catalogue.
func (s *session) completeRoles(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	cluster, err := s.cluster()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	roles, err := cluster.Roles(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]cobra.Completion, len(roles))
	for i := range roles {
		names[i] = cobra.CompletionWithDesc(roles[i].Name, clean(roles[i].Spec.Description))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeNamespaces lets --namespace complete.
func (s *session) completeNamespaces(root *cobra.Command) {
	_ = root.RegisterFlagCompletionFunc("namespace",
		func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			cluster, err := s.cluster()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
			defer cancel()
			names, _ := cluster.Namespaces(ctx)
			return names, cobra.ShellCompDirectiveNoFileComp
		})
}
