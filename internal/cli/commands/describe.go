package commands

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

func describeCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:        "describe NAME",
		SuggestFor: []string{"show", "inspect"},
		Short:      "Show what a key may do, from where and until when",
		Long: `Shows a key in full: its roles in the words of the catalogue, the networks, the expiry time, its token's hint, and
its events. The token itself can't be shown. The last use may be an hour behind, because it is recorded once an hour.

It needs the right to get apikeys. Without the right to list apiroles or events it leaves them out, and says so.`,
		Example:           "  kubectl apikey describe shopper",
		Args:              oneName,
		ValidArgsFunction: s.completeKeys(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, namespace, err := s.open()
			if err != nil {
				return err
			}
			d, err := cluster.Describe(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			return printDescription(s.Out, d, time.Now())
		},
	}
}

// description prints sections. It remembers the first failure to write.
type description struct {
	w   io.Writer
	err error
}

func (p *description) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func printDescription(w io.Writer, d *keys.Description, now time.Time) error {
	aligned := printers.GetNewTabWriter(w)
	p := &description{w: aligned}
	key, row := d.Key, keys.RowOf(d.Key, now)
	p.line("Name:\t%s", key.Name)
	p.line("Namespace:\t%s", key.Namespace)
	p.line("Purpose:\t%s", orUnknown(clean(key.Spec.DisplayName)))
	p.line("Attributes:\t%s", attributesText(key))
	p.line("Status:\t%s", statusText(key, row))
	p.line("Created:\t%s", at(key.CreationTimestamp.Time))
	p.line("Expires:\t%s", expiryText(key, row, now))
	p.line("Last used:\t%s", usedText(row, now))
	p.line("Networks:\t%s", networksText(key))
	p.line("Token:\t%s", tokenText(key))
	if retiring := key.RetiringToken(); retiring != nil {
		used := keys.NotSeen + " since the rotation"
		if retiring.LastUsedAt != nil {
			used = at(retiring.LastUsedAt.Time)
		}
		p.line("Old token:\t%s..., %s, until %s, last used: %s", retiring.TokenHint, retiring.Hash, at(retiring.RetiresAt.Time), used)
	}
	p.line("Secret:\t%s", secretText(key))
	p.line("Rotation:\t%s", rotationText(key, row, now))
	if d.DeclaredBy != "" {
		p.line("Managed by:\t%s, which creates the key again if it is deleted here", d.DeclaredBy)
	}
	if p.err == nil {
		p.err = aligned.Flush()
	}
	p.w = w
	for _, condition := range key.Status.Conditions {
		if condition.Type != v1alpha1.ConditionReady && condition.Type != v1alpha1.ConditionStalled {
			p.line("%s: %s", condition.Type, clean(condition.Message))
		}
	}
	p.roles(d)
	p.events(d, now)
	return p.err
}

func (p *description) roles(d *keys.Description) {
	p.line("\nRoles:")
	for _, role := range d.Roles {
		text := role.Description
		if text == "" {
			text = "not in the catalogue"
		}
		if d.NoCatalogue || unread(d, "apiroles") {
			text = ""
		}
		p.line("  %s", strings.TrimSpace(role.Name+"  "+clean(text)))
		if len(role.Includes) > 0 {
			p.line("    includes %s", strings.Join(role.Includes, ", "))
		}
	}
	if unread(d, "apiroles") {
		p.line("  You may not list apiroles: what these roles allow and include is unknown.")
	}
	if d.NoCatalogue {
		p.line("  The role catalogue is empty, so it does not say what they allow.")
	}
}

func (p *description) events(d *keys.Description, now time.Time) {
	p.line("\nEvents:")
	switch {
	case unread(d, "events"):
		p.line("  You may not list events.")
	case len(d.Events) == 0:
		p.line("  none; the API server keeps events for about an hour")
	}
	for _, event := range d.Events {
		p.line("  %s ago  %s  %s  %s", duration.HumanDuration(now.Sub(keys.EventTime(event).Time)), clean(event.Type), clean(event.Reason), clean(event.Message))
	}
}

func unread(d *keys.Description, kind string) bool { return slices.Contains(d.Unread, kind) }

// at formats a time.
func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// usedText says when the key was last used.
func usedText(row keys.Row, now time.Time) string {
	if row.Used.IsZero() {
		return keys.NotSeen
	}
	return fmt.Sprintf("%s (%s)", row.LastUsed(now), at(row.Used))
}

func statusText(key *v1alpha1.ApiKey, row keys.Row) string {
	if row.Status == string(v1alpha1.ReasonIssued) {
		return row.Status // the message says where the token was delivered, which Secret does better
	}
	if ready := key.Condition(v1alpha1.ConditionReady); ready != nil && row.Status == ready.Reason {
		return ready.Reason + ": " + clean(ready.Message)
	}
	if row.Status == keys.StatusPending {
		return keys.StatusPending + ": " + keys.WaitsFor(key)
	}
	return row.Status
}

func attributesText(key *v1alpha1.ApiKey) string {
	names := slices.Sorted(maps.Keys(key.Attributes()))
	all := make([]string, 0, len(names))
	for _, name := range names {
		all = append(all, name+"="+clean(key.Attributes()[name]))
	}
	return orUnknown(strings.Join(all, ", "))
}

func expiryText(key *v1alpha1.ApiKey, row keys.Row, now time.Time) string {
	switch {
	case row.Never:
		return keys.Never
	case row.ExpiresAt.IsZero():
		return fmt.Sprintf("%s after it is issued", key.Spec.Expiry.After)
	case now.Before(row.ExpiresAt):
		return fmt.Sprintf("in %s, at %s", row.Expires(now), at(row.ExpiresAt))
	default:
		return fmt.Sprintf("%s, at %s", row.Expires(now), at(row.ExpiresAt))
	}
}

func networksText(key *v1alpha1.ApiKey) string {
	if len(key.Spec.CIDRs) == 0 {
		return "any: the key works from everywhere"
	}
	return strings.Join(key.Spec.CIDRs, ", ")
}

func tokenText(key *v1alpha1.ApiKey) string {
	if !key.IsCommitted() {
		return "none yet"
	}
	text := key.Status.TokenHint + "..., " + key.Status.Hash
	switch rotation := key.Status.Rotation; {
	case rotation != nil && rotation.RotatedAt != nil:
		text += ", since the rotation at " + at(rotation.RotatedAt.Time)
	case key.Status.IssuedAt != nil:
		text += ", issued at " + at(key.Status.IssuedAt.Time)
	}
	return text
}

func secretText(key *v1alpha1.ApiKey) string {
	switch {
	case !key.IsIssued():
		return key.SecretName()
	case key.Status.SecretDeletedAt != nil:
		return fmt.Sprintf("%s, deleted at %s", key.SecretName(), at(key.Status.SecretDeletedAt.Time))
	case key.Spec.Secret != nil && key.Spec.Secret.RevealFor != "":
		return fmt.Sprintf("%s, unless somebody has deleted it, and for at most %s after the issue or a rotation", key.SecretName(), key.Spec.Secret.RevealFor)
	}
	return key.SecretName() + ", unless somebody has deleted it"
}

func rotationText(key *v1alpha1.ApiKey, row keys.Row, now time.Time) string {
	text := "on request only"
	if key.Spec.Rotation != nil && key.Spec.Rotation.Every != "" {
		text = "every " + string(key.Spec.Rotation.Every)
	}
	if rotates := row.Rotates(now); rotates != keys.Unknown {
		text += "; " + rotates
	}
	if key.PendingToken() != nil {
		text += "; a new token is being delivered"
	}
	return text
}
