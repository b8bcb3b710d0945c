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

// try is [Reconciler.issue] for a key whose Secret the API server may refuse: it asks with a dry run before it mints a
// token.
func (r *Reconciler) try(ctx context.Context, s *scope) error {
	if err := r.askFirst(ctx, s); err != nil {
		return r.undelivered(ctx, s, token.Token{}, err)
	}
	return r.issue(ctx, s)
}

// issue commits, delivers and confirms a token. If it is interrupted, [Reconciler.resume] continues.
//
// A token counts only if its digest was in the status before its Secret existed. So the digest is committed first, and an
// existing Secret is never adopted unless it holds exactly the token that was committed. Without failures this takes three
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

// resume continues after an earlier pass was interrupted between commit and confirmation, or after creating the Secret
// failed because its name was taken. minted is the committed token, or zero if it is no longer in memory.
func (r *Reconciler) resume(ctx context.Context, s *scope, minted token.Token) error {
	secret, err := r.readSecret(ctx, s.key)
	if err != nil {
		return err
	}
	found := whose(secret, s.key)
	delivered := found == ours && holds(secret, s.key, s.key.Status.Hash)
	if !delivered && (found == ours || found == predecessors) && !secret.DeletionTimestamp.IsZero() {
		return r.write(ctx, s, conflicted{fmt.Sprintf("Secret %q, which does not belong to this key, is being deleted but has finalizers; "+
			"the key is issued once the Secret is gone", secret.Name)})
	}
	switch found {
	case nobodys:
		// There is no Secret to delete.
	case ours:
		if delivered {
			return r.confirm(ctx, s)
		}
		// The Secret is owned by this key but does not hold the committed token. Somebody else created it, or an operator did
		// whose commit was overwritten. Commit before the deletion, so that a crash in between leaves nothing to confirm.
		if minted, err = r.commit(ctx, s); err != nil {
			return err
		}
		if err := r.deleteSecret(ctx, s, secret); err != nil {
			return err
		}
	case predecessors:
		// Either this key or the Secret's owner is outdated. deleteSecret reads the live key to find out which.
		if err := r.deleteSecret(ctx, s, secret); err != nil {
			return err
		}
	case foreign:
		return r.write(ctx, s, conflicted{fmt.Sprintf("Secret %q exists and does not belong to this key, so the operator leaves it "+
			"alone; the key is issued once the Secret is gone: delete it, or delete this ApiKey and create one with another "+
			"spec.secret.name", secret.Name)})
	}
	return r.redeliver(ctx, s, minted)
}

// redeliver delivers a token once the Secret's name is free. Before it mints another token, it asks the API server with a
// dry run. Otherwise each retry of a delivery that can't succeed would write a new digest, and every verifier would have to
// load it.
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

// commit mints a token and writes its digest to the status. From then on verifiers accept this token and no other.
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

// confirm records that the Secret holds the committed token. After that, no other token is ever minted for this key.
func (r *Reconciler) confirm(ctx context.Context, s *scope) error {
	if err := r.assertAllowed(ctx, s); err != nil {
		return err
	}
	return r.write(ctx, s, confirmed{})
}

// undelivered handles the failure to create a Secret, or of the dry run before it, in which case minted is zero. If the API
// server refuses the Secret because of a quota or an admission policy, the user must see the reason. In a namespace that is
// being deleted, nothing is reported.
func (r *Reconciler) undelivered(ctx context.Context, s *scope, minted token.Token, failure error) error {
	if apierrors.HasStatusCause(failure, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if apierrors.IsNotFound(failure) {
		return errStale // the namespace is gone, and so is the key
	}
	// The error of an admission plugin may quote the Secret.
	failed := fmt.Errorf("create Secret %q: %s", s.key.SecretName(), minted.Redact(failure.Error()))
	if refusal(failure) {
		return r.refuseDelivery(ctx, s, failed.Error(), !minted.IsZero())
	}
	return failed
}

// assertCurrent returns errStale unless key has the UID and resourceVersion of the live ApiKey, and that is not being
// deleted.
func (r *Reconciler) assertCurrent(ctx context.Context, key *v1alpha1.ApiKey) error {
	live := &v1alpha1.ApiKey{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(key), live); err != nil {
		if apierrors.IsNotFound(err) {
			return errStale
		}
		return fmt.Errorf("read live ApiKey: %w", err)
	}
	if live.UID != key.UID || live.ResourceVersion != key.ResourceVersion || !live.DeletionTimestamp.IsZero() {
		return errStale
	}
	return nil
}
