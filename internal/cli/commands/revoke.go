package commands

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/gitops"
)

type revokeOptions struct {
	token   string
	timeout time.Duration
}

func revokeCommand(s *session) *cobra.Command {
	o := &revokeOptions{}
	cmd := &cobra.Command{
		Use:        "revoke NAME... | --token FILE",
		Aliases:    []string{"delete"},
		SuggestFor: []string{"remove", "rm"},
		Short:      "End keys for good: delete them, and wait until they are gone",
		Long: `Deletes keys, which revokes their tokens: verifiers refuse them at once. It says first what the keys are for, and
asks. A key that Git or Helm manages comes back with another token; remove it there first.

It needs the rights to get, delete, list and watch apikeys. With --token it also searches the keys of all namespaces.`,
		Example: `  kubectl apikey revoke shopper

  # End the key of a token that leaked, without a question
  kubectl apikey revoke --token leaked.txt --yes`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: s.completeKeys(true),
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args) },
	}
	cmd.Flags().StringVar(&o.token, "token", "", "file with the token whose key is revoked, or - for standard input")
	s.addYes(cmd)
	addTimeout(cmd, &o.timeout, "how long to wait until the keys are gone")
	return cmd
}

func (o *revokeOptions) run(ctx context.Context, s *session, names []string) error {
	if (len(names) == 0) == (o.token == "") {
		return wrong("name the keys to revoke, or give --token FILE")
	}
	if o.token == "-" && !s.yes {
		return wrong("--token=-: standard input holds the token, so the question can't be asked: add --yes, or give a file")
	}
	cluster, namespace, err := s.open()
	if err != nil {
		return err
	}
	doomed, err := o.doomed(ctx, s, cluster, namespace, names)
	if err != nil {
		return err
	}
	for _, key := range doomed {
		lacking, err := cluster.Lacking(ctx, keys.OnKeys(key.Namespace, "delete", "list", "watch")...)
		if err != nil {
			return err
		}
		if len(lacking) > 0 {
			return wrong("nothing was revoked: you may not %s", keys.Enumerate(lacking))
		}
		s.say("%s", consequence(key, time.Now()))
	}
	question := fmt.Sprintf("Revoke %d keys?", len(doomed))
	if len(doomed) == 1 {
		question = fmt.Sprintf("Revoke %s/%s?", doomed[0].Namespace, doomed[0].Name)
	}
	if err := s.confirm(ctx, question); err != nil {
		return err
	}
	for i, key := range doomed {
		if err := cluster.Delete(ctx, key); err != nil {
			return fmt.Errorf("revoke %s/%s: %w%s", key.Namespace, key.Name, err, andBefore(doomed[:i]))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	for _, key := range doomed {
		if err := cluster.AwaitGone(ctx, key); err != nil {
			return fmt.Errorf("ApiKey %s/%s is being deleted, and its token is refused, but the object is not gone: %w", key.Namespace, key.Name, err)
		}
		if err := s.println(nameOf(key) + " revoked"); err != nil {
			return err
		}
	}
	return nil
}

// andBefore says which keys were revoked before a failure.
func andBefore(revoked []*v1alpha1.ApiKey) string {
	if len(revoked) == 0 {
		return ". Nothing was revoked"
	}
	names := make([]string, len(revoked))
	for i, key := range revoked {
		names[i] = key.Namespace + "/" + key.Name
	}
	return ". These were revoked before: " + strings.Join(names, ", ")
}

// doomed returns the keys to revoke.
func (o *revokeOptions) doomed(
	ctx context.Context, s *session, cluster *keys.Cluster, namespace string, names []string,
) ([]*v1alpha1.ApiKey, error) {
	if o.token == "" {
		return getAll(ctx, cluster, namespace, names)
	}
	found, err := s.readToken(ctx, []string{o.token})
	if err != nil {
		return nil, err
	}
	matches, search, err := cluster.Find(ctx, "", namespace, found.Digest())
	if err != nil {
		return nil, err
	}
	doomed := make([]*v1alpha1.ApiKey, 0, 1)
	for i := range matches[found.Digest()] {
		doomed = append(doomed, &matches[found.Digest()][i].Key)
	}
	if len(doomed) == 0 {
		s.say("%s", notFound(search))
		return nil, errNo
	}
	return doomed, nil
}

// getAll returns the named keys, or an error if one of them does not exist.
func getAll(ctx context.Context, cluster *keys.Cluster, namespace string, names []string) ([]*v1alpha1.ApiKey, error) {
	all := make([]*v1alpha1.ApiKey, 0, len(names))
	for _, name := range names {
		key, err := cluster.Get(ctx, namespace, name)
		if err != nil {
			return nil, err
		}
		all = append(all, key)
	}
	return all, nil
}

// consequence says what the end of a key breaks.
func consequence(key *v1alpha1.ApiKey, now time.Time) string {
	row := keys.RowOf(key, now)
	text := fmt.Sprintf("%s/%s (%s", key.Namespace, key.Name, row.Status)
	if key.Spec.DisplayName != "" {
		text += ", " + clean(key.Spec.DisplayName)
	}
	if row.Owner != "" {
		text += ", owner " + clean(row.Owner)
	}
	text += fmt.Sprintf(") has the roles %s; last used: %s.", few(key.Spec.Roles, false), row.LastUsed(now))
	if row.Status == string(v1alpha1.ReasonIssued) {
		text += " Whoever uses its token is refused from now on."
	}
	if tool := gitops.DeclaredBy(key.Labels, key.Annotations); tool != "" {
		text += fmt.Sprintf(" %s manages it and will create it again, as a new key with another token: remove it from there first.", tool)
	}
	return strings.TrimSpace(text)
}
