package page

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/rotation"
)

// view is the data of a key's own view.
type view struct {
	row

	Key         *v1alpha1.ApiKey
	RoleLines   []keys.RoleLine
	RolesUnread bool
	Tokens      []tokenLine
	Secret      string
	Rotates     string
	// Notes are the conditions besides Ready that hold.
	Notes        []note
	Events       []eventLine
	EventsUnread bool
	DeclaredBy   string
	Created      *moment
	Issued       *moment

	Suspended, Expired, CanRotate bool
}

type note struct{ Title, Text string }

type tokenLine struct {
	Hint, State, Digest string
	// Until is when a retiring token ends, and nil for others.
	Until *moment
	// Used is the last use that is on record. Only that of a retiring token is recorded by itself.
	Used *moment
}

type eventLine struct {
	When         *moment
	Warning      bool
	Reason, Text string
}

func (p *page) showKey(w http.ResponseWriter, r *http.Request) {
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	d, err := p.Cluster.Describe(r.Context(), namespace, name)
	if err != nil {
		p.problem(w, r, "The key "+name+" can't be shown", err)
		return
	}
	p.show(w, r, http.StatusOK, shell{
		Title: name, View: "key", Data: p.viewOf(d), Version: d.Key.ResourceVersion, Watched: namespace,
	})
}

func (p *page) viewOf(d *keys.Description) view {
	key, now := d.Key, p.now()
	v := view{
		row: p.rowOf(key, now), Key: key, RoleLines: d.Roles, RolesUnread: slices.Contains(d.Unread, "apiroles"),
		EventsUnread: slices.Contains(d.Unread, "events"), DeclaredBy: d.DeclaredBy, Created: momentOf(key.CreationTimestamp.Time, now),
		Suspended: key.IsSuspended(), Expired: key.IsExpired(), CanRotate: key.IsIssued() && !key.IsExpired(), Tokens: tokensOf(key, now),
		Secret: secretText(key, now), Rotates: rotationText(key, now), Notes: notesOf(key),
	}
	if key.Status.IssuedAt != nil {
		v.Issued = momentOf(key.Status.IssuedAt.Time, now)
	}
	for _, event := range slices.Backward(d.Events) {
		v.Events = append(v.Events, eventLine{
			When: momentOf(keys.EventTime(event).Time, now), Warning: event.Type == "Warning", Reason: spaced(event.Reason), Text: event.Message,
		})
	}
	return v
}

// tokensOf returns the tokens of a key that verifiers accept, or would accept if it was not suspended.
func tokensOf(key *v1alpha1.ApiKey, now time.Time) (lines []tokenLine) {
	if key.IsCommitted() {
		lines = append(lines, tokenLine{Hint: key.Status.TokenHint, State: "current", Digest: key.Status.Hash})
	}
	if pending := key.PendingToken(); pending != nil {
		lines = append(lines, tokenLine{Hint: pending.TokenHint, State: "pending", Digest: pending.Hash})
	}
	if retiring := key.RetiringToken(); retiring != nil {
		lines = append(lines, tokenLine{
			Hint: retiring.TokenHint, State: "retiring", Digest: retiring.Hash, Until: momentOf(retiring.RetiresAt.Time, now),
			Used: momentOf(key.RetiringLastUsedAt(), now),
		})
	}
	return lines
}

func secretText(key *v1alpha1.ApiKey, now time.Time) string {
	switch {
	case key.Status.SecretDeletedAt != nil:
		return "Secret " + key.SecretName() + " was deleted " + relative(key.Status.SecretDeletedAt.Time, now) + "."
	case key.Spec.Secret != nil && key.Spec.Secret.RevealFor != "":
		return "Secret " + key.SecretName() + " stays until its user has taken the token, and for at most " + inWords(key.Spec.Secret.RevealFor) + "."
	case key.IsIssued():
		return "Delivered in Secret " + key.SecretName() + ", data key " + key.SecretKey() + "."
	}
	return "Will be delivered in Secret " + key.SecretName() + ", data key " + key.SecretKey() + "."
}

func rotationText(key *v1alpha1.ApiKey, now time.Time) string {
	text := "The token is replaced on request only"
	if key.Spec.Rotation != nil && key.Spec.Rotation.Every != "" {
		text = "The token is replaced every " + inWords(key.Spec.Rotation.Every)
	}
	if status := key.Status.Rotation; status != nil {
		if status.RotatedAt != nil {
			text += "; the last time " + relative(status.RotatedAt.Time, now)
		}
		if status.NextAt != nil {
			text += "; the next time " + relative(status.NextAt.Time, now)
		}
	}
	return text + "."
}

func notesOf(key *v1alpha1.ApiKey) (notes []note) {
	for _, condition := range key.Status.Conditions {
		if condition.Type != v1alpha1.ConditionReady && condition.Type != v1alpha1.ConditionExpiring && condition.Status == "True" {
			notes = append(notes, note{spaced(condition.Type), condition.Message})
		}
	}
	return notes
}

// question is the data of the dialog that asks before something is done to a key.
type question struct {
	view

	Action string
	// Taken says that nothing holds the token but its user, so that a new one is shown here. Unsure says that the user may not know.
	Taken, Unsure bool
	// Overlap is how long the old token works on where the request does not say.
	Overlap string
}

// actions are what can be done to a key. Each returns the path of the view to show next.
var actions = map[string]func(*page, context.Context, *http.Request, *v1alpha1.ApiKey) (string, error){
	"delete": (*page).remove,
	"suspend": func(p *page, ctx context.Context, _ *http.Request, key *v1alpha1.ApiKey) (string, error) {
		return p.suspend(ctx, key, true)
	},
	"resume": func(p *page, ctx context.Context, _ *http.Request, key *v1alpha1.ApiKey) (string, error) {
		return p.suspend(ctx, key, false)
	},
	"rotate": (*page).rotate,
	"retire": (*page).retire,
}

// ask shows the dialog of an action.
func (p *page) ask(w http.ResponseWriter, r *http.Request) {
	action := r.PathValue("action")
	if actions[action] == nil {
		http.NotFound(w, r)
		return
	}
	d, err := p.Cluster.Describe(r.Context(), r.PathValue("namespace"), r.PathValue("name"))
	if err != nil {
		p.refuse(w, err)
		return
	}
	q := question{view: p.viewOf(d), Action: action}
	if action == "rotate" {
		exists, sure, err := p.Cluster.HasSecret(r.Context(), d.Key)
		if err != nil {
			p.refuse(w, err)
			return
		}
		q.Taken, q.Unsure = sure && !exists, !sure
		q.Overlap = span(overlapOf(d.Key.Spec.Rotation))
	}
	p.render(w, http.StatusOK, "ask-"+action, q)
}

// errReplaced says that a key is another one than the user saw.
var errReplaced = errors.New("this key was replaced by another one of its name meanwhile: load the page again")

// act does something to a key, if it is the one that the user saw.
func (p *page) act(w http.ResponseWriter, r *http.Request) {
	do := actions[r.PathValue("action")]
	if do == nil {
		http.NotFound(w, r)
		return
	}
	key, err := p.Cluster.Get(r.Context(), r.PathValue("namespace"), r.PathValue("name"))
	if err == nil && string(key.UID) != r.PostFormValue("uid") {
		http.Error(w, sentence(errReplaced), http.StatusConflict)
		return
	}
	var next string
	if err == nil {
		next, err = do(p, r.Context(), r, key)
	}
	if err != nil {
		p.refuse(w, err)
		return
	}
	p.goTo(w, next)
}

func (p *page) remove(ctx context.Context, _ *http.Request, key *v1alpha1.ApiKey) (string, error) {
	return "?namespace=" + key.Namespace, p.Cluster.Delete(ctx, key)
}

func (p *page) suspend(ctx context.Context, key *v1alpha1.ApiKey, suspended bool) (string, error) {
	_, err := p.Cluster.SetSuspended(ctx, key, suspended)
	return "keys/" + key.Namespace + "/" + key.Name + "/", err
}

// rotate asks for a new token. If nothing but its user holds the old one, the new one is shown here.
func (p *page) rotate(ctx context.Context, r *http.Request, key *v1alpha1.ApiKey) (string, error) {
	value := p.request()
	if overlap := r.PostFormValue("overlap"); overlap != "" {
		value += ";overlap=" + overlap
	}
	if _, err := rotation.ParseRequest(value); err != nil {
		return "", apierrors.NewBadRequest("overlap: must be a duration of at most 30d, such as 1h: " + err.Error())
	}
	exists, sure, err := p.Cluster.HasSecret(ctx, key)
	if err != nil {
		return "", err
	}
	if _, err := p.Cluster.Request(ctx, key, v1alpha1.AnnotationRotate, value); err != nil {
		return "", err
	}
	at := "keys/" + key.Namespace + "/" + key.Name + "/"
	if sure && !exists {
		at += "token/" + p.receipts.add(receipt{key: key, request: value})
	}
	return at, nil
}

// request returns a value for an annotation that asks for something, which no earlier request has.
func (p *page) request() string {
	return p.now().UTC().Format(time.RFC3339) + "-" + strings.ToLower(rand.Text()[:8])
}

// retire ends the token before the last rotation.
func (p *page) retire(ctx context.Context, _ *http.Request, key *v1alpha1.ApiKey) (string, error) {
	_, err := p.Cluster.Request(ctx, key, v1alpha1.AnnotationRetire, p.request())
	return "keys/" + key.Namespace + "/" + key.Name + "/", err
}

// overlapOf returns how long the old token of a key works on after a rotation, if its request does not say.
func overlapOf(spec *v1alpha1.ApiKeyRotation) time.Duration {
	every, overlap := time.Duration(0), time.Duration(-1)
	if spec != nil {
		if d, err := expiry.ParseDuration(string(spec.Every)); err == nil && spec.Every != "" {
			every = d
		}
		if d, err := expiry.ParseDuration(string(spec.Overlap)); err == nil && spec.Overlap != "" {
			overlap = d
		}
	}
	return rotation.Overlap(every, overlap)
}
