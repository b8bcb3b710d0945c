package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// BlockedError says that the operator can't do a rotation that was requested. The request stays, and the operator goes on trying.
type BlockedError struct {
	// Condition is the condition RotationBlocked.
	Condition metav1.Condition
}

// Error says why.
func (e *BlockedError) Error() string {
	return fmt.Sprintf("the rotation is blocked (%s): %s", e.Condition.Reason, e.Condition.Message)
}

// Request sets an annotation that asks the operator for something, and returns the key as it is then. It fails if the key was replaced since.
func (c *Cluster) Request(ctx context.Context, key *v1alpha1.ApiKey, annotation, value string) (*v1alpha1.ApiKey, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": key.UID, "annotations": map[string]string{annotation: value}}})
	if err != nil {
		return nil, err
	}
	changed := key.DeepCopy()
	err = c.client.Patch(ctx, changed, client.RawPatch(types.MergePatchType, patch))
	return withKind(changed), err
}

// AwaitRotated waits until a request to rotate a key was handled, and returns the key as it is then. The error is a [*BlockedError] if the
// operator says, after the request, that it can't do it; key is the key before the request. Other errors are those of [Cluster.AwaitIssued].
func (c *Cluster) AwaitRotated(ctx context.Context, key *v1alpha1.ApiKey, request string, seen func(*v1alpha1.ApiKey)) (*v1alpha1.ApiKey, error) {
	before := key.Condition(v1alpha1.ConditionRotationBlocked)
	return c.await(ctx, key, seen, func(now *v1alpha1.ApiKey) (bool, error) {
		if now.Status.Rotation != nil && slices.Contains(now.Status.Rotation.HandledRequests, request) {
			if blocked := now.Condition(v1alpha1.ConditionRotationBlocked); blocked != nil && blocked.Reason == string(v1alpha1.ReasonInvalidRequest) {
				return false, &BlockedError{*blocked}
			}
			return true, nil
		}
		if now.IsExpired() {
			return false, ErrExpired
		}
		if blocked := now.Condition(v1alpha1.ConditionRotationBlocked); blocked != nil &&
			blocked.Reason != string(v1alpha1.ReasonWaiting) && (before == nil || *before != *blocked) {
			return false, &BlockedError{*blocked}
		}
		return false, nil
	})
}

// AwaitRetired waits until a key has no retiring token.
func (c *Cluster) AwaitRetired(ctx context.Context, key *v1alpha1.ApiKey) (*v1alpha1.ApiKey, error) {
	return c.await(ctx, key, func(*v1alpha1.ApiKey) {}, func(now *v1alpha1.ApiKey) (bool, error) { return now.RetiringToken() == nil, nil })
}

// HasSecret reports whether the Secret of a key exists. If the user may not read it, sure is false.
func (c *Cluster) HasSecret(ctx context.Context, key *v1alpha1.ApiKey) (exists, sure bool, err error) {
	err = c.secret.do(ctx, "GET", key.Namespace, key.SecretName(), nil, nil)
	switch {
	case err == nil:
		return true, true, nil
	case apierrors.IsNotFound(err):
		return false, true, nil
	case apierrors.IsForbidden(err):
		return false, false, nil
	}
	return false, false, err
}

// WaitsToRotate says in words what a requested rotation waits for.
func WaitsToRotate(key *v1alpha1.ApiKey, now time.Time) string {
	blocked := key.Condition(v1alpha1.ConditionRotationBlocked)
	switch {
	case blocked != nil && blocked.Reason == string(v1alpha1.ReasonWaiting) && key.RetiringToken() != nil:
		return blocked.Message + "; rotate --retire-old and rotate --now do that"
	case blocked != nil && blocked.Reason == string(v1alpha1.ReasonWaiting):
		return blocked.Message
	case blocked != nil:
		return (&BlockedError{*blocked}).Error()
	case key.PendingToken() != nil:
		return "the new token is committed, and is being delivered"
	case key.RetiringToken() != nil && now.Before(key.RetiringToken().RetiresAt.Time):
		return "the token before the last rotation is still accepted, until " + key.RetiringToken().RetiresAt.UTC().Format(time.RFC3339) +
			", and only two tokens are valid at once: end it with --retire-old"
	case key.Status.Rotation != nil && key.Status.Rotation.RotatedAt != nil && now.Sub(key.Status.Rotation.RotatedAt.Time) < time.Minute:
		return "the last rotation is less than a minute ago"
	}
	return "no operator has looked at the request yet: check that apikey-operator runs"
}
