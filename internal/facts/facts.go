// Package facts translates the spec and status of an ApiKey to the facts of package lifecycle. It must not decide anything,
// read a clock or write.
package facts

import (
	"fmt"
	"time"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/gitops"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
	"github.com/apikey-operator/apikey-operator/internal/rotation"
)

// Of returns the facts of a key. defaultTTL is how long an expired key is kept if its spec does not say. An error means that
// a field that matters in the key's state has a value that the schema of the CRD refuses.
func Of(key *v1alpha1.ApiKey, defaultTTL time.Duration) (lifecycle.Facts, error) {
	f := lifecycle.Facts{Record: Record(key)}
	var err error
	switch {
	case f.Deleting:
		return f, nil
	case f.Told == lifecycle.ToldExpired:
		f.CollectAt, err = collectAt(key, f.KeptBy, defaultTTL)
		return f, err
	}
	if f.Deadline, f.Life, err = deadline(key); err != nil {
		return f, err
	}
	setRotation(&f, key)
	f.WithdrawAt, err = withdrawAt(key)
	return f, err
}

// setRotation sets the times of rotations.
func setRotation(f *lifecycle.Facts, key *v1alpha1.ApiKey) {
	status := key.Status.Rotation
	if status == nil {
		return
	}
	if status.RotatedAt != nil {
		f.RotatedAt = status.RotatedAt.Time
	}
	if status.NextAt != nil {
		f.NextRotationAt = status.NextAt.Time
	}
	if status.Retiring != nil {
		f.RetiresAt = status.Retiring.RetiresAt.Time
	}
}

// Record returns what is written about a key, which is enough to determine its state.
func Record(key *v1alpha1.ApiKey) lifecycle.Record {
	r := lifecycle.Record{
		Told:          told(key.ReadyReason()),
		Deleting:      !key.DeletionTimestamp.IsZero(),
		Committed:     key.IsCommitted(),
		Issued:        key.IsIssued(),
		SecretNamed:   key.Status.SecretName != "",
		SecretDeleted: key.Status.SecretDeletedAt != nil,
		Suspend:       key.IsSuspended(),
		ClockSkewed:   key.Condition(v1alpha1.ConditionClockSkewed) != nil,
	}
	if r.Issued {
		r.IssuedAt = key.Status.IssuedAt.Time
	}
	if r.Told == lifecycle.ToldExpired {
		r.KeptBy = KeptBy(key)
	}
	r.Rotation = rotationOf(key)
	if stalled := key.Condition(v1alpha1.ConditionStalled); stalled != nil && stalled.Reason == string(v1alpha1.ReasonSecretConflict) {
		r.ConflictSince = stalled.LastTransitionTime.Time
	}
	return r
}

// rotationOf returns what is written about rotations of a key. A request that can't be read is none, see [InvalidRequest].
func rotationOf(key *v1alpha1.ApiKey) lifecycle.Rotation {
	r := lifecycle.Rotation{Begun: key.PendingToken() != nil, Retiring: key.RetiringToken() != nil}
	if value := key.RotationRequest(); value != "" {
		request, err := rotation.ParseRequest(value)
		r.Requested = err == nil
		r.AtOnce = r.Requested && request.HasOverlap && request.Overlap == 0
	}
	if value := key.RetirementRequest(); value != "" {
		r.RetireRequested = rotation.ValidateRetirement(value) == nil
	}
	blocked := key.Condition(v1alpha1.ConditionRotationBlocked)
	if blocked != nil && blocked.Reason != string(v1alpha1.ReasonWaiting) {
		r.Blocked, r.BlockedSince = true, blocked.LastTransitionTime.Time
	}
	return r
}

// InvalidRequest returns the error of a request to rotate the key or to end its retiring token that can't be read, or nil.
func InvalidRequest(key *v1alpha1.ApiKey) error {
	if value := key.RotationRequest(); value != "" {
		if _, err := rotation.ParseRequest(value); err != nil {
			return fmt.Errorf("annotation %s: %w", v1alpha1.AnnotationRotate, err)
		}
	}
	if value := key.RetirementRequest(); value != "" {
		if err := rotation.ValidateRetirement(value); err != nil {
			return fmt.Errorf("annotation %s: %w", v1alpha1.AnnotationRetire, err)
		}
	}
	return nil
}

// Overlap returns how long the current token stays valid after a rotation by schedule. An error means that the spec has a value
// that the schema of the CRD refuses.
func Overlap(key *v1alpha1.ApiKey, minEvery time.Duration) (time.Duration, error) {
	every, err := Every(key, minEvery)
	if err != nil {
		return 0, err
	}
	overlap := time.Duration(-1)
	if spec := key.Spec.Rotation; spec != nil && spec.Overlap != "" {
		if overlap, err = duration("spec.rotation.overlap", spec.Overlap); err != nil {
			return 0, err
		}
	}
	return rotation.Overlap(every, overlap), nil
}

// Every returns the period of rotations, which is at least minEvery, or 0 if the key is rotated on request only. An error means
// that the spec has a value that the schema of the CRD refuses.
func Every(key *v1alpha1.ApiKey, minEvery time.Duration) (time.Duration, error) {
	if key.Spec.Rotation == nil || key.Spec.Rotation.Every == "" {
		return 0, nil
	}
	every, err := duration("spec.rotation.every", key.Spec.Rotation.Every)
	return max(every, minEvery), err
}

// State returns the state of a key.
func State(key *v1alpha1.ApiKey) lifecycle.State { return Record(key).State() }

// told translates a reason of Ready. It treats an unknown reason as Issuing.
func told(reason v1alpha1.Reason) lifecycle.Told {
	switch reason {
	case "":
		return lifecycle.ToldNothing
	case v1alpha1.ReasonIssued:
		return lifecycle.ToldIssued
	case v1alpha1.ReasonSuspended:
		return lifecycle.ToldSuspended
	case v1alpha1.ReasonExpired:
		return lifecycle.ToldExpired
	case v1alpha1.ReasonSecretConflict:
		return lifecycle.ToldConflict
	case v1alpha1.ReasonUnknownRole, v1alpha1.ReasonNotAllowed:
		return lifecycle.ToldRules
	case v1alpha1.ReasonDeliveryRefused:
		return lifecycle.ToldDelivery
	default:
		return lifecycle.ToldIssuing
	}
}

// Credential is a digest, as it is in the status, and the deadline until which verifiers accept its token.
type Credential struct {
	// Field is the field of the status that has the digest.
	Field    string
	Hash     string
	Deadline expiry.Deadline
	// Recorded is the last use on record, or zero if there is none. Retiring says that it is the token before the last rotation.
	Recorded time.Time
	Retiring bool
}

// Credentials returns the tokens of a key that verifiers know: the current one, the pending one of a rotation, and the retiring
// one. The deadline has passed for keys that are marked as expired. An error means that the spec has a value that the schema of
// the CRD refuses; all deadlines have passed then.
func Credentials(key *v1alpha1.ApiKey) ([]Credential, error) {
	f := lifecycle.Facts{Record: Record(key)}
	if !f.Findable() {
		return nil, nil
	}
	var err error
	if f.State().Alive() {
		f.Deadline, f.Life, err = deadline(key)
		setRotation(&f, key)
	}
	all := []Credential{{Field: "status.hash", Hash: key.Status.Hash, Deadline: f.AcceptedUntil(), Recorded: key.LastUsedAt()}}
	if pending := key.PendingToken(); pending != nil {
		all = append(all, Credential{
			Field: "status.rotation.pending.hash", Hash: pending.Hash, Deadline: f.AcceptedUntil(), Recorded: key.LastUsedAt(),
		})
	}
	if retiring := key.RetiringToken(); retiring != nil {
		all = append(all, Credential{
			Field: "status.rotation.retiring.hash", Hash: retiring.Hash, Deadline: f.RetiringAcceptedUntil(),
			Recorded: key.RetiringLastUsedAt(), Retiring: true,
		})
	}
	return all, err
}

// deadline returns the deadline of a key, or its lifetime if the deadline is not fixed yet. Once the deadline is fixed, it
// is read from the status.
func deadline(key *v1alpha1.ApiKey) (fixed expiry.Deadline, life time.Duration, err error) {
	spec := key.Spec.Expiry
	switch {
	case key.Status.ExpiresAt != nil:
		return expiry.At(key.Status.ExpiresAt.Time), 0, nil
	case spec.Never != nil && *spec.Never:
		return expiry.Never(), 0, nil
	case spec.At != "":
		at, err := moment(spec.At)
		if err != nil {
			return expiry.Deadline{}, 0, err
		}
		return expiry.At(at), 0, nil
	}
	if life, err = duration("spec.expiry.after", spec.After); err != nil {
		return expiry.Deadline{}, 0, err
	}
	if key.IsCommitted() || life == 0 {
		// Somebody removed the deadline from the status. Use the earliest possible one, which is safe.
		return expiry.At(key.CreationTimestamp.Add(life)), 0, nil
	}
	return expiry.Deadline{}, life, nil
}

// Lifespan is the lifetime of a key, or never.
type Lifespan struct {
	Never  bool
	Length time.Duration
}

// Life returns the lifetime that policies judge: expiry.after, or the time from issue until expiry.at. For a key that is not
// issued, it counts from now.
func Life(key *v1alpha1.ApiKey, now time.Time) (Lifespan, error) {
	spec := key.Spec.Expiry
	switch {
	case spec.Never != nil && *spec.Never:
		return Lifespan{Never: true}, nil
	case spec.At != "":
		at, err := moment(spec.At)
		if err != nil {
			return Lifespan{}, err
		}
		if key.IsIssued() {
			now = key.Status.IssuedAt.Time
		}
		return Lifespan{Length: at.Sub(now)}, nil
	default:
		after, err := duration("spec.expiry.after", spec.After)
		if err != nil {
			return Lifespan{}, err
		}
		return Lifespan{Length: after}, nil
	}
}

// withdrawAt returns when the Secret of an issued key is deleted, or zero if the Secret stays as long as the key is valid.
func withdrawAt(key *v1alpha1.ApiKey) (time.Time, error) {
	if key.Spec.Secret == nil || key.Spec.Secret.RevealFor == "" || !key.IsIssued() || key.Status.SecretDeletedAt != nil {
		return time.Time{}, nil
	}
	revealFor, err := duration("spec.secret.revealFor", key.Spec.Secret.RevealFor)
	if err != nil {
		return time.Time{}, err
	}
	delivered := key.Status.IssuedAt.Time
	if status := key.Status.Rotation; status != nil && status.RotatedAt != nil {
		delivered = status.RotatedAt.Time
	}
	return delivered.Add(revealFor), nil
}

// collectAt returns when an expired key is deleted, or zero if it is kept or its expiry time is unknown.
func collectAt(key *v1alpha1.ApiKey, keptBy string, ttl time.Duration) (time.Time, error) {
	if key.Status.ExpiresAt == nil || keptBy != "" {
		return time.Time{}, nil
	}
	if key.Spec.TTLAfterExpired != "" {
		var err error
		if ttl, err = duration("spec.ttlAfterExpired", key.Spec.TTLAfterExpired); err != nil {
			return time.Time{}, err
		}
	}
	marked := key.Condition(v1alpha1.ConditionReady).LastTransitionTime.Time
	return expiry.CollectAt(key.Status.ExpiresAt.Time, marked, ttl), nil
}

func moment(text string) (time.Time, error) {
	at, err := expiry.ParseMoment(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("spec.expiry.at: %w", err)
	}
	return at, nil
}

func duration(field string, text v1alpha1.Duration) (time.Duration, error) {
	d, err := expiry.ParseDuration(string(text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", field, err)
	}
	return d, nil
}

// KeptBy says why an expired key is kept as a tombstone: a deployment tool that would create a deleted key again, or
// [v1alpha1.AnnotationKeep]. It returns "" if the key is not kept.
func KeptBy(key *v1alpha1.ApiKey) string {
	if key.IsKept() {
		return "the annotation " + v1alpha1.AnnotationKeep
	}
	return gitops.DeclaredBy(key.Labels, key.Annotations)
}

// Trim removes metadata that no controller reads, because it may be much larger than the rest of a cached key. It does not
// change the result of [KeptBy], and keeps requests to rotate. The live key keeps its metadata, because patches of the status contain none.
func Trim(key *v1alpha1.ApiKey) {
	kept := key.IsKept()
	all := key.Annotations
	key.Labels, key.Annotations = gitops.Essence(key.Labels, all)
	if kept {
		key.Annotations = map[string]string{v1alpha1.AnnotationKeep: "true"} // it takes precedence over the tools
	}
	for _, name := range []string{v1alpha1.AnnotationRotate, v1alpha1.AnnotationRetire} {
		if value, ok := all[name]; ok {
			if key.Annotations == nil {
				key.Annotations = map[string]string{}
			}
			key.Annotations[name] = value[:min(len(value), rotation.MaxValue+1)] // no longer value is valid
		}
	}
	key.OwnerReferences, key.Finalizers, key.ManagedFields = nil, nil, nil
}
