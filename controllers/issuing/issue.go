package issuing

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// try is issue for a key whose Secret may well be refused: the API server is asked by a dry run before anything is minted.
func (r *Reconciler) try(ctx context.Context, s *scope) error {
	if err := r.askFirst(ctx, s); err != nil {
		return r.undelivered(ctx, s, token.Token{}, err)
	}
	return r.issue(ctx, s)
}

// issue is the whole of commit, deliver, confirm; resume is the way back in after any of them was cut off.
//
// A token is worth something only if its digest stood in the status before its Secret existed: so the digest is committed first, and
// a Secret that is already there is never adopted unless it holds the very token that was committed. The happy path is three
// writes and no read.
func (r *Reconciler) issue(ctx context.Context, s *scope) error {
	minted, err := r.commit(ctx, s)
	if err != nil {
		return err
	}
	err = r.createSecret(ctx, s, minted)
	switch {
	case err == nil:
		return r.confirm(ctx, s)
	case apierrors.IsAlreadyExists(err):
		return r.resume(ctx, s, minted)
	default:
		return r.undelivered(ctx, s, minted, err)
	}
}

// resume goes on where an earlier pass was cut off after its commit, or where a Secret of the wanted name was there first. minted
// is the committed token, or zero where nobody has it any more.
func (r *Reconciler) resume(ctx context.Context, s *scope, minted token.Token) error {
	secret, err := r.readSecret(ctx, s.key)
	if err != nil {
		return err
	}
	found := whose(secret, s.key)
	if (found == planted || found == predecessors) && !secret.DeletionTimestamp.IsZero() {
		return r.write(ctx, s, conflicted{fmt.Sprintf("Secret %q, which is not this key's, is being deleted, but its finalizers hold it; "+
			"the key is issued once it is gone", secret.Name)})
	}
	switch found {
	case nobodys:
		// Nothing to clear away.
	case delivered:
		return r.confirm(ctx, s)
	case planted:
		// Ours by its owner, yet not what was committed: planted, or delivered by an operator that has been overtaken. The
		// commit comes first, so that a crash in between leaves nothing that could be confirmed.
		if minted, err = r.commit(ctx, s); err != nil {
			return err
		}
		if err := r.deleteSecret(ctx, s, secret); err != nil {
			return err
		}
	case predecessors:
		// Whether we or the Secret's owner is the past, the live read of each deletion tells.
		if err := r.deleteSecret(ctx, s, secret); err != nil {
			return err
		}
	case foreign:
		return r.write(ctx, s, conflicted{fmt.Sprintf("Secret %q exists and is not this key's; it is left alone, and the key is issued "+
			"once it is gone: delete it, or delete this ApiKey and create one with another spec.secret.name", secret.Name)})
	}
	return r.redeliver(ctx, s, minted)
}

// redeliver delivers where nothing is in the way any more. A token is minted again only after the API server was asked: else each retry
// of what it can't or won't do would cost a write, and every verifier would be told of it.
func (r *Reconciler) redeliver(ctx context.Context, s *scope, minted token.Token) error {
	if minted.IsZero() {
		if err := r.askFirst(ctx, s); err != nil {
			return r.undelivered(ctx, s, minted, err)
		}
		var err error
		if minted, err = r.commit(ctx, s); err != nil {
			return err
		}
	}
	if err := r.createSecret(ctx, s, minted); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return errStale
		}
		return r.undelivered(ctx, s, minted, err)
	}
	return r.confirm(ctx, s)
}

// commit mints a token and writes its digest to the status: the promise that this token, and no other, may become valid.
func (r *Reconciler) commit(ctx context.Context, s *scope) (token.Token, error) {
	if err := r.assertAllowed(ctx, s); err != nil {
		return token.Token{}, err
	}
	minted := token.Mint(r.TokenPrefix)
	if err := r.write(ctx, s, committed{minted.Digest().String(), minted.Hint()}); err != nil {
		return token.Token{}, err
	}
	return minted, nil
}

// confirm records that the committed token is in its Secret. From here on nothing is minted for this key again.
func (r *Reconciler) confirm(ctx context.Context, s *scope) error {
	if err := r.assertAllowed(ctx, s); err != nil {
		return err
	}
	return r.write(ctx, s, confirmed{})
}

// undelivered handles a Secret that could not be created, or would not be: minted is zero where that was only asked. What the API server
// refuses (a quota, another's admission policy) its user must see; in a namespace that is going away there is nobody to tell.
func (r *Reconciler) undelivered(ctx context.Context, s *scope, minted token.Token, failure error) error {
	if apierrors.HasStatusCause(failure, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if apierrors.IsNotFound(failure) {
		return errStale // the namespace has gone, and the key with it
	}
	// An admission plugin may quote the object that it refuses.
	failed := fmt.Errorf("create Secret %q: %s", s.key.SecretName(), minted.Redact(failure.Error()))
	if refusal(failure) {
		return r.refuseDelivery(ctx, s, failed.Error(), !minted.IsZero())
	}
	return failed
}

// assertCurrent returns errStale unless the key that we hold is the live one, to the very resourceVersion, and stays.
func (r *Reconciler) assertCurrent(ctx context.Context, key *v1alpha1.ApiKey) error {
	live := &v1alpha1.ApiKey{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(key), live); err != nil {
		if apierrors.IsNotFound(err) {
			return errStale
		}
		return fmt.Errorf("read ApiKey live: %w", err)
	}
	if live.UID != key.UID || live.ResourceVersion != key.ResourceVersion || !live.DeletionTimestamp.IsZero() {
		return errStale
	}
	return nil
}
