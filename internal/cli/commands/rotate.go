package commands

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/rotation"
)

type rotateOptions struct {
	overlap string
	now     bool
	retire  bool
	timeout time.Duration
}

func rotateCommand(s *session) *cobra.Command {
	o := &rotateOptions{}
	cmd := &cobra.Command{
		Use:        "rotate NAME",
		SuggestFor: []string{"renew", "regenerate"},
		Short:      "Replace the token of a key by a new one",
		Long: `Gives a key a new token, and waits until it is delivered. The key itself stays the same. The old token works on for
the overlap, so that its users can change over; see the time in the message.

The new token is in the key's Secret, where workloads find it, and standard output has the name of the key. If somebody
has taken the Secret away, as create does, standard output has the new token instead, once.

A key has at most two tokens. While the one before the last rotation works, only --now and --retire-old are possible.

It needs the rights to get, patch, list and watch apikeys; to print a token, also to get and delete the Secret.`,
		Example: `  # The old token works on for 24 hours, or as long as the key says
  kubectl apikey rotate shopper

  # The token leaked: the old one ends at once
  kubectl apikey rotate shopper --now

  # All users have the new token: end the old one before its time
  kubectl apikey rotate shopper --retire-old`,
		Args:              oneName,
		ValidArgsFunction: s.completeKeys(false),
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args[0]) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.overlap, "overlap", "", "how long the old token works on, such as 1h, at most 30d; absent means what the key says, or 24h")
	flags.BoolVar(&o.now, "now", false, "end the old token as soon as the new one is delivered")
	flags.BoolVar(&o.retire, "retire-old", false, "make no new token, but end the token before the last rotation now")
	s.addYes(cmd)
	addTimeout(cmd, &o.timeout, "how long to wait until the new token is delivered")
	return cmd
}

// request returns the value of the annotation that asks for the rotation.
func (o *rotateOptions) request() (string, error) {
	if o.now && o.overlap != "" || o.retire && (o.now || o.overlap != "") {
		return "", wrong("give at most one of --overlap, --now and --retire-old")
	}
	value := time.Now().UTC().Format(time.RFC3339) + "-" + rand.Text()[:8]
	switch {
	case o.now:
		value += ";overlap=0s"
	case o.overlap != "":
		value += ";overlap=" + o.overlap
	}
	if _, err := rotation.ParseRequest(value); err != nil {
		return "", wrong("--overlap=%s: must be a duration of at most 30d, such as 1h", o.overlap)
	}
	return value, nil
}

func (o *rotateOptions) run(ctx context.Context, s *session, name string) error {
	request, err := o.request()
	if err != nil {
		return err
	}
	cluster, namespace, err := s.open()
	if err != nil {
		return err
	}
	key, err := cluster.Get(ctx, namespace, name)
	if err != nil {
		return err
	}
	lacking, err := cluster.Lacking(ctx, keys.OnKeys(namespace, "patch", "list", "watch")...)
	if err != nil {
		return err
	}
	if len(lacking) > 0 {
		return wrong("nothing was changed: you may not %s", keys.Enumerate(lacking))
	}
	if o.retire {
		return o.retireOld(ctx, s, cluster, key, request)
	}
	if key.IsExpired() || !key.IsIssued() {
		return wrong("nothing was changed: only a key that is issued and has not expired can get a new token; %s", keys.WaitsFor(key))
	}
	if retiring := key.RetiringToken(); !o.now && retiring != nil && time.Now().Before(retiring.RetiresAt.Time) {
		return wrong("nothing was changed: the token before the last rotation (%s...) works until %s, and a key has at most two tokens; "+
			"end that one first with --retire-old, or end both old tokens with --now", retiring.TokenHint, at(retiring.RetiresAt.Time))
	}
	exists, sure, err := cluster.HasSecret(ctx, key)
	if err != nil {
		return err
	}
	taken := sure && !exists
	s.say("%s", o.consequence(key, taken, sure))
	if err := s.confirm(ctx, fmt.Sprintf("Rotate %s/%s?", key.Namespace, key.Name)); err != nil {
		return err
	}
	return o.rotate(ctx, s, cluster, key, request, taken)
}

// consequence says what a rotation does.
func (o *rotateOptions) consequence(key *v1alpha1.ApiKey, taken, sure bool) string {
	text := fmt.Sprintf("%s/%s gets a new token", key.Namespace, key.Name)
	switch {
	case taken:
		text += fmt.Sprintf(". Nobody mounts it: its Secret %q was taken away, so the new token is printed, once.", key.SecretName())
	case sure:
		text += fmt.Sprintf(", in Secret %q.", key.SecretName())
	default:
		text += fmt.Sprintf(", in Secret %q, which you may not read.", key.SecretName())
	}
	if o.now {
		text += " The old token ends at once: whoever uses it is refused until they have the new one."
	}
	return text
}

func (o *rotateOptions) rotate(ctx context.Context, s *session, cluster *keys.Cluster, key *v1alpha1.ApiKey, request string, taken bool) error {
	if _, err := cluster.Request(ctx, key, v1alpha1.AnnotationRotate, request); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	progress := newProgress(s)
	rotated, err := cluster.AwaitRotated(waiting, key, request, func(now *v1alpha1.ApiKey) {
		progress.print("Waiting: " + keys.WaitsToRotate(now, time.Now()))
	})
	progress.end()
	if err != nil {
		return o.unrotated(err, key)
	}
	s.say("%s", rotatedText(rotated, taken, s.introduction()))
	if !taken {
		return s.println(nameOf(rotated) + " rotated")
	}
	delivery, err := cluster.Token(ctx, rotated)
	if err != nil {
		return fmt.Errorf("read the new token: %w\nIt is in Secret %q", err, rotated.SecretName())
	}
	return s.handOver(ctx, cluster, rotated, delivery, false)
}

// unrotated says how a rotation stands that did not end.
func (o *rotateOptions) unrotated(err error, key *v1alpha1.ApiKey) error {
	if errors.Is(err, keys.ErrDeleted) || errors.Is(err, keys.ErrExpired) {
		return err
	}
	var blocked *keys.BlockedError
	if errors.As(err, &blocked) && blocked.Condition.Reason == string(v1alpha1.ReasonInvalidRequest) {
		return fmt.Errorf("%w\nThe key goes on with its old token", err)
	}
	why := err.Error()
	var late *keys.TimeoutError
	if errors.As(err, &late) && late.Cause == nil && late.Key != nil {
		why = "timed out; " + keys.WaitsToRotate(late.Key, time.Now())
	}
	code := exitFailed
	if late != nil {
		code = exitTimeout
	}
	if interrupted := (Interruption{}); errors.As(err, &interrupted) {
		code = exitInterrupted
	}
	return &exitError{code, fmt.Errorf("%[1]s\nThe key goes on with its old token. The request stays, and the operator rotates the key once it can. "+
		"Until then, this withdraws it: kubectl annotate apikey %[2]s -n %[3]s %[4]s-\n"+
		"If the old token must not work on, run: kubectl apikey suspend %[2]s -n %[3]s", why, key.Name, key.Namespace, v1alpha1.AnnotationRotate)}
}

// rotatedText says where the new token is, and until when the old one is accepted. taken says that it is about to be printed; the text ends
// with end then.
func rotatedText(key *v1alpha1.ApiKey, taken bool, end string) string {
	old := "The old token is refused from now on."
	if retiring := key.RetiringToken(); retiring != nil {
		old = fmt.Sprintf("The old token (%s...) works on until %s.", retiring.TokenHint, at(retiring.RetiresAt.Time))
	}
	if taken {
		return fmt.Sprintf("%s You can't see the new token (%s...) again%s", old, key.Status.TokenHint, end)
	}
	return fmt.Sprintf("The new token (%s...) is in Secret %q. %s", key.Status.TokenHint, key.SecretName(), old)
}

// retireOld ends the retiring token of a key.
func (o *rotateOptions) retireOld(ctx context.Context, s *session, cluster *keys.Cluster, key *v1alpha1.ApiKey, request string) error {
	retiring := key.RetiringToken()
	if retiring == nil {
		return s.println(nameOf(key) + " has no old token that still works")
	}
	s.say("%s/%s: the token before the last rotation (%s...) would work until %s. Whoever still uses it is refused from now on.",
		key.Namespace, key.Name, retiring.TokenHint, at(retiring.RetiresAt.Time))
	if key.RotationRequest() != "" {
		s.say("A rotation was requested, too, and begins as soon as the old token has ended.")
	}
	if err := s.confirm(ctx, fmt.Sprintf("End the old token of %s/%s?", key.Namespace, key.Name)); err != nil {
		return err
	}
	if _, err := cluster.Request(ctx, key, v1alpha1.AnnotationRetire, request); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if _, err := cluster.AwaitRetired(ctx, key); err != nil {
		return fmt.Errorf("the old token is not ended yet: %w", err)
	}
	return s.println(nameOf(key) + " retired its old token")
}
