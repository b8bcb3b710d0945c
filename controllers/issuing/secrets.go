package issuing

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// quiet returns a context without a logger, to keep Secrets out of the log: at verbosity 8, client-go logs bodies through
// the context's logger.
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

// newSecret builds the token Secret. It does not copy the labels and annotations of the key: a GitOps tool would take the
// Secret for one that it applied, and prune it.
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
				// With true, the admission plugin OwnerReferencesPermissionEnforcement would require the permission to
				// update apikeys/finalizers.
				BlockOwnerDeletion: ptr.To(false),
			}},
		},
		// Not immutable: a rotation replaces the token, and a kubelet never follows an immutable Secret while a pod of its node
		// mounts it (kubernetes#131589). Admission policies keep everyone else from changing it.
		Type: v1alpha1.SecretType,
		Data: map[string][]byte{key.SecretKey(): []byte(content)},
	}
}

// emptySecret returns a Secret that names the object of a patch and receives the answer.
func emptySecret(secret *corev1.Secret) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: secret.Namespace, Name: secret.Name}}
}

// replaceToken returns a JSON Patch (RFC 6902) that replaces the token of exactly this Secret. It fails if the Secret was
// replaced or holds another token meanwhile. The data key has no character that a JSON Pointer would have to escape.
func replaceToken(secret *corev1.Secret, dataKey, content string) client.Patch {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	operations := []operation{
		{"test", "/metadata/uid", secret.UID},
		{"test", "/data/" + dataKey, secret.Data[dataKey]},
		{"replace", "/data/" + dataKey, []byte(content)},
	}
	patch, _ := json.Marshal(operations) // can't fail: there are only strings and bytes
	return client.RawPatch(types.JSONPatchType, patch)
}

// redactSecret removes the tokens that a Secret holds from a text that comes from elsewhere. secret may be nil.
func redactSecret(secret *corev1.Secret, text string) string {
	if secret == nil {
		return text
	}
	for _, value := range secret.Data {
		if held, err := token.Parse(string(value)); err == nil {
			text = held.Redact(text)
		}
	}
	return text
}

// readSecret reads the key's Secret from the API server. It returns nil if there is none.
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

// deleteSecret deletes exactly the Secret that was read. Nothing else deletes Secrets. The order matters: the caller reads
// the Secret; then deleteSecret checks that the live key is the one that the pass was decided on; only then does it delete
// the Secret, by its UID. A digest counts only if it was committed before its Secret existed, so a Secret that is older than
// the live read can't be the one that another pass delivers afterwards. If the key or the Secret was replaced, deleteSecret
// returns errStale.
func (r *Reconciler) deleteSecret(ctx context.Context, s *scope, secret *corev1.Secret) error {
	if err := r.assertCurrent(ctx, s.key); err != nil {
		return err
	}
	err := r.Client.Delete(quiet(ctx), secret, client.Preconditions{UID: &secret.UID})
	switch {
	case apierrors.IsConflict(err):
		return errStale
	case client.IgnoreNotFound(err) != nil:
		// The error of an admission plugin may quote the Secret.
		return fmt.Errorf("delete Secret %q: %s", secret.Name, redactSecret(secret, err.Error()))
	}
	return nil
}

// deleteOwnSecret deletes the key's Secret if it exists and belongs to this key. It reports whether it did.
func (r *Reconciler) deleteOwnSecret(ctx context.Context, s *scope) (bool, error) {
	secret, err := r.readSecret(ctx, s.key)
	if err != nil {
		return false, err
	}
	switch whose(secret, s.key) {
	case ours:
		return true, r.deleteSecret(ctx, s, secret)
	case nobodys, predecessors, foreign:
	}
	return false, nil
}

// owner says which key a Secret with the requested name belongs to.
type owner int

const (
	// nobodys: the Secret does not exist.
	nobodys owner = iota
	// ours: its owner reference names this key. [holds] says whether it holds a token of the key.
	ours
	// predecessors: it belongs to another ApiKey of the same name, which came before or after this one.
	predecessors
	// foreign: it belongs to something else. The operator never changes it.
	foreign
)

// whose classifies a Secret by its type, which is immutable, and by its controller. The type keeps every Secret that was
// made for another purpose out of the operator's reach, whatever its owner references say.
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
	return ours
}

// holds reports whether the Secret holds the token with the digest.
func holds(secret *corev1.Secret, key *v1alpha1.ApiKey, hash string) bool {
	found, err := token.Parse(string(secret.Data[key.SecretKey()]))
	return err == nil && found.Digest().String() == hash
}
