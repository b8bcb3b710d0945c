package commands

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/grant"
)

// createOptions are the flags of create.
type createOptions struct {
	form    keys.Form
	dryRun  string
	output  string
	timeout time.Duration
}

// Values of --dry-run, as kubectl has them.
const (
	dryNone   = "none"
	dryClient = "client"
	dryServer = "server"
)

func createCommand(s *session) *cobra.Command {
	o := &createOptions{}
	cmd := &cobra.Command{
		Use:        "create NAME --role ROLE --expires WHEN",
		SuggestFor: []string{"new", "add", "issue"},
		Short:      "Create a key and print its token once",
		Long: `Creates an API key, waits until it is issued, and prints the token on standard output. This is the only time that
anybody sees it: then the Secret with the token is deleted, and the key goes on working.

For a workload that mounts the Secret, use --keep-secret; with -o name the token is not printed then.

Nothing is created if you lack a right, or if the schema, the role catalogue or a policy would refuse the key. If the
command is interrupted before it has printed the token, the token stays in its Secret for 15 minutes.

It needs the rights to create, list and watch apikeys, and to get and delete the Secret; with --keep-secret -o name, none
on Secrets.`,
		Example: `  # A key for 90 days; its token goes into a file that only you can read
  (umask 077; kubectl apikey create shopper --role org.permission.order.read --expires 90d > shopper.token)

  # A key for a workload, which mounts the Secret
  kubectl apikey create web-shop --role org.permission.order.read --expires 2027-01-31 --keep-secret -o name

  # The manifest of a key, for Git
  kubectl apikey create web-shop --role org.permission.order.read --expires never --cidr 10.20.0.0/16 \
    --keep-secret --dry-run=client -o yaml`,
		Args:              oneName,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args[0]) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVar(&o.form.Roles, "role", nil, "a role that the key has; repeat it for several")
	flags.StringVar(&o.form.Expires, "expires", "", "when the key expires: after a duration such as 90d or 12h, on a date such as 2027-01-31 "+
		"(the start of that day in UTC), at a time such as 2027-01-31T18:00:00Z, or never")
	flags.StringSliceVar(&o.form.CIDRs, "cidr", nil, "a network that the key may be used from; repeat it for several; absent means any network")
	flags.StringVar(&o.form.DisplayName, "display-name", "", "what the key is for, for people")
	flags.StringArrayVar(&o.form.Attributes, "attribute", nil, "an attribute as name=value, such as owner=team-shop; repeat it for several")
	flags.BoolVar(&o.form.Keep, "keep-secret", false, "leave the token in its Secret, for a workload that mounts it")
	flags.StringVar(&o.form.SecretName, "secret-name", "", "name of the Secret; absent means the name of the key")
	flags.StringVar(&o.form.SecretKey, "secret-key", "", "key of the token in the Secret; absent means token")
	flags.StringVar(&o.form.RotateEvery, "rotate-every", "", "replace the token after this time, such as 30d; needs --keep-secret")
	flags.StringVar(&o.form.Overlap, "rotate-overlap", "", "how long the old token works on after a rotation, such as 1h; absent means 24h, or half of --rotate-every")
	addOutput(cmd, &o.output, formatJSON, formatYAML, formatName)
	cmd.Flag("output").Usage = "print the ApiKey in place of the token: json, yaml or name; needs --keep-secret, or --dry-run"
	flags.StringVar(&o.dryRun, "dry-run", dryNone, "none; client prints the ApiKey and asks nobody; server checks it in full and creates nothing")
	addTimeout(cmd, &o.timeout, "how long to wait until the key is issued")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if strings.Contains(err.Error(), "unknown flag: --owner") {
			err = fmt.Errorf("%w; an owner is an attribute: --attribute owner=NAME", err)
		}
		return cmd.Parent().FlagErrorFunc()(cmd, err)
	})
	_ = cmd.RegisterFlagCompletionFunc("role", s.completeRoles)
	_ = cmd.RegisterFlagCompletionFunc("expires", cobra.FixedCompletions([]string{"7d", "30d", "60d", "90d", keys.Never}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("dry-run", cobra.FixedCompletions([]string{dryNone, dryClient, dryServer}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// validate checks the flags, as far as they don't concern the key itself.
func (o *createOptions) validate() error {
	switch {
	case len(o.form.Roles) == 0:
		return wrong("--role is missing: a key needs at least one role; kubectl apikey roles lists them")
	case o.form.Expires == "":
		return wrong("--expires is missing: give a duration such as 90d, a date such as 2027-01-31, or never")
	case !slices.Contains([]string{dryNone, dryClient, dryServer}, o.dryRun):
		return wrong("--dry-run=%s: must be none, client or server", o.dryRun)
	case o.output != "" && o.dryRun == dryNone && !o.form.Keep:
		return wrong("--output=%s prints the ApiKey in place of the token, which nobody would get: add --keep-secret", o.output)
	case o.form.RotateEvery != "" && !o.form.Keep:
		return wrong("--rotate-every=%s: the new tokens would reach nobody, because the Secret is taken away: add --keep-secret", o.form.RotateEvery)
	case o.timeout <= 0:
		return wrong("--timeout=%s: must be more than 0, such as 1m", o.timeout)
	}
	return nil
}

func (o *createOptions) run(ctx context.Context, s *session, name string) error {
	if err := o.validate(); err != nil {
		return err
	}
	var err error
	if o.form.Namespace, err = s.namespace(); err != nil {
		return err
	}
	o.form.Name = name
	key, err := o.form.Key()
	if err != nil {
		return wrong("%w", err)
	}
	if moment, err := expiry.ParseMoment(key.Spec.Expiry.At); err == nil && !moment.After(time.Now()) {
		return wrong("nothing was created: --expires=%s is in the past, so the key would never work", o.form.Expires)
	}
	if o.dryRun == dryClient {
		return o.printDry(s, key)
	}
	cluster, err := s.cluster()
	if err != nil {
		return err
	}
	stored, err := o.prepare(ctx, s, cluster, key)
	if err != nil {
		return err
	}
	if o.dryRun == dryServer {
		stored.UID, stored.CreationTimestamp.Time, stored.Generation = "", time.Time{}, 0
		return o.printDry(s, stored)
	}
	created, err := create(ctx, cluster, key)
	if err != nil {
		return err
	}
	return o.deliver(ctx, s, cluster, created)
}

func (o *createOptions) printDry(s *session, key *v1alpha1.ApiKey) error {
	if o.output == "" {
		return s.println(nameOf(key) + " would be created (" + o.dryRun + " dry run)")
	}
	return printObject(s.Out, o.output, key)
}

// prepare refuses a key that would not be issued, before it is created. It returns the key as the API server would store it.
func (o *createOptions) prepare(ctx context.Context, s *session, cluster *keys.Cluster, key *v1alpha1.ApiKey) (*v1alpha1.ApiKey, error) {
	rights := keys.OnKeys(key.Namespace, "create", "list", "watch")
	if o.printsToken() {
		rights = append(rights, keys.OnSecret(key.Namespace, key.SecretName(), "get")...)
	}
	lacking, err := cluster.Lacking(ctx, rights...)
	if err != nil {
		return nil, err
	}
	if len(lacking) > 0 {
		return nil, wrong("nothing was created: you may not %s; ask whoever manages RBAC in this cluster for the ClusterRole apikey-admin%s",
			keys.Enumerate(lacking), o.secretAdvice())
	}
	stored, err := cluster.DryRun(ctx, key)
	if err != nil {
		return nil, refusal(err)
	}
	judged, err := cluster.Judge(ctx, stored, time.Now())
	if err != nil {
		return nil, err
	}
	if judged.Refused() {
		advice := ""
		if judged.Verdict.Outcome == grant.UnknownRole {
			advice = "; kubectl apikey roles lists all roles"
		}
		return nil, wrong("nothing was created: %s%s", judged.Verdict.Message, advice)
	}
	if len(judged.Unread) > 0 {
		s.say("You may not list %s, so only the operator can say whether they allow this key.", strings.Join(judged.Unread, ", "))
	}
	if judged.NoRoles {
		s.say("The role catalogue is empty, so nothing says whether the key's roles mean anything. " +
			"An operator with --require-catalogue does not issue the key.")
	}
	return stored, nil
}

// printsToken reports whether the token is printed, and so must be read.
func (o *createOptions) printsToken() bool { return o.output == "" && o.dryRun == dryNone }

func (o *createOptions) secretAdvice() string {
	if !o.printsToken() {
		return ""
	}
	return ", and for the right to read the Secret; for a workload, --keep-secret -o name needs no right on Secrets"
}

// create creates a key. An interruption must not cut off the answer: it says whether the key exists.
func create(ctx context.Context, cluster *keys.Cluster, key *v1alpha1.ApiKey) (*v1alpha1.ApiKey, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("nothing was created: %w", context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keys.Timeout)
	defer cancel()
	created, err := cluster.Create(ctx, key)
	var status apierrors.APIStatus
	if err != nil && !errors.As(err, &status) {
		return nil, fmt.Errorf("the API server did not answer: %w\nApiKey %s/%s may have been created: look at it with kubectl apikey describe %s -n %s",
			err, key.Namespace, key.Name, key.Name, key.Namespace)
	}
	return created, refusal(err)
}

// refusal explains why the API server refused a key.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsAlreadyExists(err):
		return wrong("nothing was created: %w; a key can't be changed: choose another name, or revoke it first", err)
	case apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err):
		return wrong("nothing was created: %w", err)
	}
	return err
}

// deliver waits until a key is issued, and prints its token or the object.
func (o *createOptions) deliver(ctx context.Context, s *session, cluster *keys.Cluster, key *v1alpha1.ApiKey) error {
	waiting, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	progress := newProgress(s)
	issued, err := cluster.AwaitIssued(waiting, key, progress.show)
	progress.end()
	if err != nil {
		return undelivered(err, key)
	}
	if !o.printsToken() {
		return printObject(s.Out, o.output, issued)
	}
	delivery, err := cluster.Token(ctx, issued)
	if err != nil {
		return undelivered(fmt.Errorf("read the token: %w", err), issued)
	}
	s.say("%s", issuedText(issued, s.introduction()))
	return s.handOver(ctx, cluster, issued, delivery, o.form.Keep)
}

// handOver prints a token, and deletes its Secret once standard output has taken it.
func (s *session) handOver(ctx context.Context, cluster *keys.Cluster, key *v1alpha1.ApiKey, delivery keys.Delivery, keep bool) error {
	if _, err := s.Out.Write([]byte(delivery.Token.Reveal() + "\n")); err != nil {
		return undelivered(fmt.Errorf("%w: %w", errTokenLost, err), key)
	}
	if keep {
		s.say("The token also stays in Secret %q.", delivery.Secret)
		return nil
	}
	// The token is out, so an interruption no longer matters.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := cluster.TakeAway(ctx, key.Namespace, delivery); err != nil {
		s.say("Secret %q could not be deleted: %v. Delete it, since it holds the token.", delivery.Secret, err)
	}
	return nil
}

// cleanupTimeout is how long the deletion of a Secret may take after its token was printed.
const cleanupTimeout = 10 * time.Second

// introduction ends a sentence about a token, which follows on a terminal and goes elsewhere otherwise.
func (s *session) introduction() string {
	if isTerminal(s.Out) {
		return ":"
	}
	return "."
}

// issuedText says that a key was issued, and ends with end.
func issuedText(key *v1alpha1.ApiKey, end string) string {
	until := "does not expire"
	if at := key.Status.ExpiresAt; at != nil {
		until = "expires at " + at.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("ApiKey %s/%s is issued, and %s. You can't see its token again%s", key.Namespace, key.Name, until, end)
}

// undelivered explains where a token is that was not printed.
func undelivered(err error, key *v1alpha1.ApiKey) error {
	undo := fmt.Sprintf("kubectl apikey revoke %s -n %s", key.Name, key.Namespace)
	if errors.Is(err, keys.ErrDeleted) || errors.Is(err, keys.ErrExpired) {
		return err
	}
	where := fmt.Sprintf("Once it is issued, its token is in Secret %q", key.SecretName())
	if key.IsIssued() {
		where = fmt.Sprintf("Its token is in Secret %q", key.SecretName())
	}
	if key.Spec.Secret != nil && key.Spec.Secret.RevealFor != "" {
		where += " for " + string(key.Spec.Secret.RevealFor)
	}
	return fmt.Errorf("%w\nApiKey %s/%s exists. %s: kubectl get secret %s -n %s -o go-template='{{index .data %q | base64decode}}'\nTo undo it, run: %s",
		err, key.Namespace, key.Name, where, key.SecretName(), key.Namespace, key.SecretKey(), undo)
}
