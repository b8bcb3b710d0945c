// Package timeline says what an ApiKey's spec and status mean in moments: it translates for the controllers, and
// neither reads a clock nor writes anything.
package timeline

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/gitops"
)

// Deadline is the moment from which the key is dead. It is read from the status once it has been fixed there; before, it
// is computed as if it were fixed now. An error means that the spec holds what the CRD's schema refuses.
func Deadline(key *v1alpha1.ApiKey, now time.Time) (expiry.Deadline, error) {
	spec := key.Spec.Expiry
	switch {
	case key.Status.ExpiresAt != nil:
		return expiry.At(key.Status.ExpiresAt.Time), nil
	case spec.Never != nil && *spec.Never:
		return expiry.Never(), nil
	case spec.At != "":
		at, err := expiry.ParseMoment(spec.At)
		if err != nil {
			return expiry.Deadline{}, fmt.Errorf("spec.expiry.at: %w", err)
		}
		return expiry.At(at), nil
	default:
		after, err := expiry.ParseDuration(string(spec.After))
		if err != nil {
			return expiry.Deadline{}, fmt.Errorf("spec.expiry.after: %w", err)
		}
		if key.Status.Hash != "" {
			// Somebody removed the deadline from the status. The earliest it can have been is safe.
			now = key.CreationTimestamp.Time
		}
		return expiry.At(now.Add(after)), nil
	}
}

// Lifespan is how long a key lives, or never.
type Lifespan struct {
	Never  bool
	Length time.Duration
}

// Life is the life that a key asks for: the length of expiry.after, or what was left until expiry.at when the key was issued; now, for
// one that has not been. It is what policy is about.
func Life(key *v1alpha1.ApiKey, now time.Time) (Lifespan, error) {
	spec := key.Spec.Expiry
	switch {
	case spec.Never != nil && *spec.Never:
		return Lifespan{Never: true}, nil
	case spec.At != "":
		at, err := expiry.ParseMoment(spec.At)
		if err != nil {
			return Lifespan{}, fmt.Errorf("spec.expiry.at: %w", err)
		}
		if key.Status.IssuedAt != nil {
			now = key.Status.IssuedAt.Time
		}
		return Lifespan{Length: at.Sub(now)}, nil
	default:
		after, err := expiry.ParseDuration(string(spec.After))
		if err != nil {
			return Lifespan{}, fmt.Errorf("spec.expiry.after: %w", err)
		}
		return Lifespan{Length: after}, nil
	}
}

// Expired tells whether the key has been marked as expired. That is for ever, even if a clock is corrected.
func Expired(key *v1alpha1.ApiKey) bool {
	ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == string(v1alpha1.ReasonExpired)
}

// WithdrawAt is when the operator deletes the Secret of a key that lives on; false means not at all, or that it has
// been done.
func WithdrawAt(key *v1alpha1.ApiKey) (time.Time, bool, error) {
	if key.Spec.Secret == nil || key.Spec.Secret.RevealFor == "" || key.Status.IssuedAt == nil || key.Status.SecretDeletedAt != nil {
		return time.Time{}, false, nil
	}
	revealFor, err := expiry.ParseDuration(string(key.Spec.Secret.RevealFor))
	if err != nil {
		return time.Time{}, false, fmt.Errorf("spec.secret.revealFor: %w", err)
	}
	return key.Status.IssuedAt.Add(revealFor), true, nil
}

// CollectAt is when the operator deletes an expired key; false means that the key has not expired or is a tombstone.
func CollectAt(key *v1alpha1.ApiKey, defaultTTL time.Duration) (time.Time, bool, error) {
	if !Expired(key) || key.Status.ExpiresAt == nil || KeptBy(key) != "" {
		return time.Time{}, false, nil
	}
	ttl := defaultTTL
	if key.Spec.TTLAfterExpired != "" {
		var err error
		if ttl, err = expiry.ParseDuration(string(key.Spec.TTLAfterExpired)); err != nil {
			return time.Time{}, false, fmt.Errorf("spec.ttlAfterExpired: %w", err)
		}
	}
	marked := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady).LastTransitionTime.Time
	return expiry.CollectAt(key.Status.ExpiresAt.Time, marked, ttl), true, nil
}

// KeptBy names what keeps an expired key as a tombstone: a deployment tool that would bring a deleted key back as a new
// one, or the annotation that asks for it; "" if nothing does.
func KeptBy(key *v1alpha1.ApiKey) string {
	if key.Annotations[v1alpha1.AnnotationKeep] == "true" {
		return "the annotation " + v1alpha1.AnnotationKeep
	}
	return gitops.DeclaredBy(key.Labels, key.Annotations)
}

// Trim takes from a key's metadata what no controller reads, which may be many times the size of the rest. KeptBy says the same of it as
// before. What is taken off a cached key is not taken off the live one: a patch of the status holds nothing of metadata.
func Trim(key *v1alpha1.ApiKey) {
	keep := key.Annotations[v1alpha1.AnnotationKeep]
	key.Labels, key.Annotations = gitops.Essence(key.Labels, key.Annotations)
	if keep == "true" {
		key.Annotations = map[string]string{v1alpha1.AnnotationKeep: keep} // it goes before what a tool wrote
	}
	key.OwnerReferences, key.Finalizers, key.ManagedFields = nil, nil, nil
}
