package issuing

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

const (
	managedByLabel = "app.kubernetes.io/managed-by"
	managedBy      = "apikey-operator"
	apiKeyKind     = "ApiKey"
)

// quiet keeps Secrets out of the log: client-go logs bodies at verbosity 8 through the context's logger.
func quiet(ctx context.Context) context.Context {
	return logr.NewContext(ctx, logr.Discard())
}

func (r *Reconciler) createSecret(ctx context.Context, s *scope, minted token.Token) error {
	err := r.Client.Create(quiet(ctx), newSecret(s.key, minted.Reveal()))
	if err == nil {
		r.gates.delivered(s.key.Namespace, s.round, r.Clock.Now())
	}
	return err
}

// newSecret is the token's Secret. The key's own labels and annotations are not copied: a GitOps tool would take the Secret for one
// that it had applied, and prune it.
func newSecret(key *v1alpha1.ApiKey, content string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace,
			Name:      key.SecretName(),
			Labels:    map[string]string{managedByLabel: managedBy},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(),
				Kind:       apiKeyKind,
				Name:       key.Name,
				UID:        key.UID,
				Controller: ptr.To(true),
				// True would need the permission to update apikeys/finalizers, where the admission plugin
				// OwnerReferencesPermissionEnforcement is on.
				BlockOwnerDeletion: ptr.To(false),
			}},
		},
		Type:      v1alpha1.SecretType,
		Immutable: ptr.To(true),
		Data:      map[string][]byte{key.SecretKey(): []byte(content)},
	}
}

// readSecret reads the Secret of the key's Secret name from the API server; nil if there is none.
func (r *Reconciler) readSecret(ctx context.Context, key *v1alpha1.ApiKey) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.Live.Get(quiet(ctx), client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}, secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %q: %w", key.SecretName(), err)
	}
	return secret, nil
}

// deleteSecret deletes the very Secret that was read. It is the one place that deletes any, and its rule is: first the Secret was read,
// then the key's live view is the one that the pass decided on, and only then is the Secret deleted, by its UID. A digest counts only if it
// was committed before its Secret existed; so a Secret that was there before the live view can become no other pass's live one after it.
// Anything else, such as another Secret of its name, makes it errStale.
func (r *Reconciler) deleteSecret(ctx context.Context, s *scope, secret *corev1.Secret) error {
	if err := r.assertCurrent(ctx, s.key); err != nil {
		return err
	}
	err := r.Client.Delete(quiet(ctx), secret, client.Preconditions{UID: &secret.UID})
	switch {
	case apierrors.IsConflict(err):
		return errStale
	case client.IgnoreNotFound(err) != nil:
		// An admission plugin may quote the object that it holds on to.
		text := err.Error()
		for _, value := range secret.Data {
			if held, err := token.Parse(string(value)); err == nil {
				text = held.Redact(text)
			}
		}
		return fmt.Errorf("delete Secret %q: %s", secret.Name, text)
	}
	return nil
}

// deleteOwnSecret deletes the key's Secret if there is one and it is this key's own, and tells whether it did.
func (r *Reconciler) deleteOwnSecret(ctx context.Context, s *scope) (bool, error) {
	secret, err := r.readSecret(ctx, s.key)
	if err != nil {
		return false, err
	}
	switch whose(secret, s.key) {
	case delivered, planted:
		return true, r.deleteSecret(ctx, s, secret)
	case nobodys, predecessors, foreign:
	}
	return false, nil
}

// owner is whose a Secret of the wanted name is.
type owner int

const (
	// nobodys: there is none.
	nobodys owner = iota
	// delivered: ours, holding the token that was committed.
	delivered
	// planted: ours by its owner reference, holding anything else.
	planted
	// predecessors: of another ApiKey of the same name, which ours has replaced, or which has replaced ours.
	predecessors
	// foreign: anybody else's. Never touched.
	foreign
)

// whose classifies a Secret by what can't be changed about it (its type) and by its controller. A type of its own keeps every
// Secret that was made for another purpose out of the operator's reach, whatever its owner references say.
func whose(secret *corev1.Secret, key *v1alpha1.ApiKey) owner {
	if secret == nil {
		return nobodys
	}
	controller := metav1.GetControllerOf(secret)
	if secret.Type != v1alpha1.SecretType || controller == nil ||
		controller.APIVersion != v1alpha1.GroupVersion.String() || controller.Kind != apiKeyKind || controller.Name != key.Name {
		return foreign
	}
	if controller.UID != key.UID {
		return predecessors
	}
	found, err := token.Parse(string(secret.Data[key.SecretKey()]))
	if err != nil || found.Digest().String() != key.Status.Hash {
		return planted
	}
	return delivered
}
