package issuing

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/grant"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
	"github.com/apikey-operator/apikey-operator/internal/rotation"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// minImmutableOverlap is the least overlap when an immutable Secret is replaced, as older releases created it: a kubelet shows
// the old contents while a pod on its node mounts the Secret (kubernetes#131589).
const minImmutableOverlap = 24 * time.Hour

// order is what a rotation must do: which request it serves, or "" if it is due by schedule, and how long the current token
// stays valid.
type order struct {
	request string
	overlap time.Duration
}

// rotate replaces the token of an issued key, or continues to. Like an issue it commits, delivers and confirms: verifiers accept
// the new token before the Secret holds it, and the overlap of the old token begins when the new one is known to be delivered. So
// a failure between two writes locks nobody out.
func (r *Reconciler) rotate(ctx context.Context, s *scope) error {
	secret, err := r.readSecret(ctx, s.key)
	if err != nil {
		return err
	}
	if pending := s.key.PendingToken(); pending != nil && whose(secret, s.key) == ours && holds(secret, s.key, pending.Hash) {
		return r.confirmRotation(ctx, s, nil)
	}
	wanted, err := r.orderOf(s)
	if err != nil {
		return err
	}
	if blocked := undeliverable(secret, s.key, wanted); blocked != nil {
		return r.write(ctx, s, blocked)
	}
	if isImmutable(secret) {
		wanted.overlap = max(wanted.overlap, minImmutableOverlap)
	}
	return r.rotateInto(ctx, s, secret, wanted)
}

// orderOf returns the order of the rotation that was begun, or of the one that is due. A request takes over a rotation by schedule
// that was begun: only a request may create the Secret if its user has deleted it meanwhile.
func (r *Reconciler) orderOf(s *scope) (order, error) {
	overlap, err := facts.Overlap(s.key, r.MinRotationEvery)
	wanted := order{overlap: overlap}
	if pending := s.key.PendingToken(); err == nil && pending != nil {
		wanted.request = pending.Request
		wanted.overlap, err = pendingOverlap(pending)
	}
	if err != nil {
		return order{}, reconcile.TerminalError(err)
	}
	if wanted.request != "" {
		return wanted, nil
	}
	if at, requested := s.facts.RequestedRotationAt(); requested && !s.now.Before(at) {
		wanted.request = s.key.RotationRequest()
		request, err := rotation.ParseRequest(wanted.request)
		if err != nil {
			return order{}, errStale // the facts say that it is valid
		}
		if request.HasOverlap {
			wanted.overlap = request.Overlap
		}
	}
	return wanted, nil
}

func pendingOverlap(pending *v1alpha1.ApiKeyPendingToken) (time.Duration, error) {
	overlap, err := expiry.ParseDuration(string(pending.Overlap))
	if err != nil {
		return 0, fmt.Errorf("status.rotation.pending.overlap: %w", err)
	}
	return overlap, nil
}

// undeliverable returns why the new token can't be delivered to the Secret that has the name, or nil if it can.
func undeliverable(secret *corev1.Secret, key *v1alpha1.ApiKey, wanted order) outcome {
	name := key.SecretName()
	switch found := whose(secret, key); {
	case found == nobodys && wanted.request == "":
		return rotationBlocked{v1alpha1.ReasonSecretTaken, fmt.Sprintf("a rotation is due by schedule, but Secret %q was deleted, so a new token "+
			"would reach nobody; request a rotation with the annotation %s when you can take the new token", name, v1alpha1.AnnotationRotate)}
	case found == nobodys:
		return nil
	case found != ours:
		return rotationBlocked{v1alpha1.ReasonSecretConflict, fmt.Sprintf("Secret %q does not belong to this key, so the operator leaves it "+
			"alone; the key is rotated once the Secret is gone", name)}
	case !secret.DeletionTimestamp.IsZero():
		return rotationBlocked{v1alpha1.ReasonSecretConflict, fmt.Sprintf("Secret %q is being deleted but has finalizers; the key is rotated "+
			"once the Secret is gone", name)}
	case isImmutable(secret) && wanted.request == "":
		return rotationBlocked{v1alpha1.ReasonDeliveryRefused, fmt.Sprintf("Secret %q is immutable, so its token can't be replaced by schedule; "+
			"request a rotation with the annotation %s", name, v1alpha1.AnnotationRotate)}
	}
	return nil
}

func isImmutable(secret *corev1.Secret) bool {
	return secret != nil && ptr.Deref(secret.Immutable, false)
}

// rotateInto commits another token, delivers it to the Secret that was read, or to a new one, and confirms it.
func (r *Reconciler) rotateInto(ctx context.Context, s *scope, secret *corev1.Secret, wanted order) error {
	// A retry of a delivery that was refused asks first. Otherwise each retry would write a digest, and every verifier would load it.
	if blocked := s.key.Condition(v1alpha1.ConditionRotationBlocked); blocked != nil && blocked.Reason == string(v1alpha1.ReasonDeliveryRefused) {
		if err := r.askDelivery(ctx, s, secret); err != nil {
			return r.rotationUndelivered(ctx, s, secret, token.Token{}, err)
		}
	}
	minted, err := r.commitRotation(ctx, s, wanted)
	if err != nil || minted.IsZero() {
		return err
	}
	if secret != nil && !isImmutable(secret) {
		if err := r.patchSecret(ctx, s, secret, minted); err != nil {
			return r.rotationUndelivered(ctx, s, secret, minted, err)
		}
		return r.confirmRotation(ctx, s, nil)
	}
	if secret != nil {
		if err := r.deleteSecret(ctx, s, secret); err != nil {
			return err
		}
	}
	created := newSecret(s.key, minted.Reveal())
	if err := r.Client.Create(quiet(ctx), created); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return errStale
		}
		return r.rotationUndelivered(ctx, s, secret, minted, err)
	}
	return r.confirmRotation(ctx, s, created)
}

// askDelivery asks the API server with a dry run whether it would accept the delivery of a token. Like [Reconciler.askFirst], it
// returns nil if that can't be known.
func (r *Reconciler) askDelivery(ctx context.Context, s *scope, secret *corev1.Secret) error {
	if secret == nil || isImmutable(secret) {
		return r.askFirst(ctx, s)
	}
	err := r.Client.Patch(quiet(ctx), emptySecret(secret), replaceToken(secret, s.key.SecretKey(), notAToken), client.DryRunAll)
	if apierrors.ReasonForError(err) == metav1.StatusReasonBadRequest {
		return nil
	}
	return err
}

// commitRotation mints a token and writes its digest to the status as pending. Roles and policies are judged here and not
// later: what was delivered is confirmed. If they refuse, the status says so, and there is no token.
func (r *Reconciler) commitRotation(ctx context.Context, s *scope, wanted order) (token.Token, error) {
	verdict, err := r.Rules.Judge(ctx, s.key, s.now)
	if err != nil {
		return token.Token{}, err
	}
	s.verdict = verdict
	if verdict.Outcome != grant.Allowed {
		return token.Token{}, r.write(ctx, s, rotationRefused(verdict))
	}
	minted := token.Mint(r.TokenPrefix)
	digest := minted.Digest().String()
	if err := r.write(ctx, s, rotationCommitted{digest, minted.Hint(), wanted}); err != nil {
		return token.Token{}, err
	}
	if pending := s.key.PendingToken(); pending == nil || pending.Hash != digest {
		return token.Token{}, reconcile.TerminalError(errors.New("the API server dropped status.rotation, so keys can't be rotated: " +
			"the CRD of ApiKeys is older than this operator; apply config/crd"))
	}
	return minted, nil
}

// patchSecret replaces the token in the Secret. The patch applies only to exactly this Secret with exactly this token; its labels
// and annotations belong to its users. If the Secret was replaced meanwhile by one with the same token, patchSecret tries a second time.
func (r *Reconciler) patchSecret(ctx context.Context, s *scope, secret *corev1.Secret, minted token.Token) error {
	key := s.key.SecretKey()
	err := r.Client.Patch(quiet(ctx), emptySecret(secret), replaceToken(secret, key, minted.Reveal()))
	if err == nil || !refusal(err) && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return err
	}
	now, readErr := r.readSecret(ctx, s.key)
	switch {
	case readErr != nil:
		return readErr
	case whose(now, s.key) != ours || isImmutable(now) || !now.DeletionTimestamp.IsZero() || string(now.Data[key]) != string(secret.Data[key]):
		return errStale
	case now.UID == secret.UID:
		return err // nothing has changed, so the API server refuses the patch
	}
	return r.Client.Patch(quiet(ctx), emptySecret(now), replaceToken(now, key, minted.Reveal()))
}

// rotationUndelivered handles the failure to deliver the token of a rotation, or of the dry run before it, in which case minted
// is zero. The pending token stays: a request whose answer was lost may have delivered it.
func (r *Reconciler) rotationUndelivered(ctx context.Context, s *scope, secret *corev1.Secret, minted token.Token, failure error) error {
	if errors.Is(failure, errStale) || apierrors.HasStatusCause(failure, corev1.NamespaceTerminatingCause) {
		return errStale
	}
	// The error of an admission plugin may quote the Secret.
	text := minted.Redact(redactSecret(secret, failure.Error()))
	if refusal(failure) {
		return r.write(ctx, s, rotationBlocked{v1alpha1.ReasonDeliveryRefused, fmt.Sprintf("the API server refused to write the new token to "+
			"Secret %q: %s; the current token stays valid, and the operator retries with growing delays of up to ten minutes",
			s.key.SecretName(), clip(text))})
	}
	return fmt.Errorf("deliver the new token to Secret %q: %s", s.key.SecretName(), text)
}

// confirmRotation makes the pending token the current one, and begins the overlap of the token before. created is the Secret
// that this pass created, or nil.
func (r *Reconciler) confirmRotation(ctx context.Context, s *scope, created *corev1.Secret) error {
	pending := *s.key.PendingToken()
	overlap, err := pendingOverlap(&pending)
	if err != nil {
		return reconcile.TerminalError(err)
	}
	// The overlap counts from now, and not from the start of the pass. If the clock was set since it was compared, the next pass confirms.
	now := r.Clock.Now().UTC()
	err = errStale
	if !lifecycle.Jumped(s.now, now) {
		err = r.write(ctx, s, rotated{now, overlap, pending.Request, s.key.Status.Rotation.NextAt})
	}
	if created != nil && (errors.Is(err, errStale) || apierrors.IsConflict(err) || apierrors.IsNotFound(err)) {
		// Another operator, an expiry or a deletion came first, and nobody would delete this Secret.
		return errors.Join(err, r.deleteUnlessKnown(ctx, s.key, pending.Hash, created))
	}
	return err
}

// deleteUnlessKnown deletes a Secret that this pass created, unless the live key has the digest of its token.
func (r *Reconciler) deleteUnlessKnown(ctx context.Context, key *v1alpha1.ApiKey, digest string, created *corev1.Secret) error {
	live := &v1alpha1.ApiKey{}
	err := r.Live.Get(ctx, client.ObjectKeyFromObject(key), live)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read live ApiKey: %w", err)
	}
	pending := live.PendingToken()
	if err == nil && live.UID == key.UID && facts.State(live) != lifecycle.Expired && facts.State(live) != lifecycle.Tombstone &&
		(live.Status.Hash == digest || pending != nil && pending.Hash == digest) {
		return nil
	}
	err = r.Client.Delete(quiet(ctx), created, client.Preconditions{UID: &created.UID})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete Secret %q: %s", created.Name, redactSecret(created, err.Error()))
	}
	return nil
}

// retire removes the digest of the retiring token, if there is one. request is the request to do so, or "" if its overlap has
// passed.
func (r *Reconciler) retire(ctx context.Context, s *scope, request string) error {
	hint := ""
	if retiring := s.key.RetiringToken(); retiring != nil {
		hint = retiring.TokenHint
	}
	return r.write(ctx, s, retired{hint, request})
}
