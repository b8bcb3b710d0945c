package v1alpha1

import "slices"

// Condition types of an ApiKey.
const (
	// ConditionReady is True once the key is issued and until it expires.
	ConditionReady = "Ready"

	// ConditionExpiring is present, with status True, in the last fifth of the key's lifetime, but no earlier than 14 days
	// before it expires.
	ConditionExpiring = "Expiring"

	// ConditionStalled is present, with status True, while the key can't become Ready unless somebody acts. It has the
	// same reason as Ready. kstatus (Flux, kpt) reports it as a failure.
	ConditionStalled = "Stalled"

	// ConditionClockSkewed is present, with status True, while the clocks of the operator and of the API server differ too
	// much for decisions that depend on time. Meanwhile nothing is issued, expired or deleted.
	ConditionClockSkewed = "ClockSkewed"

	// ConditionOutOfPolicy is present, with status True, while an issued key would not be issued again: no policy allows
	// it now, or the catalogue lacks one of its roles. The key keeps working.
	ConditionOutOfPolicy = "OutOfPolicy"

	// ConditionRotationBlocked is present, with status True, while a rotation is due or requested and can't be done, or waits.
	// The current token stays valid, and Ready stays True.
	ConditionRotationBlocked = "RotationBlocked"
)

// Reason is the reason of a condition, and of the event about the same transition.
type Reason string

// Reasons of Ready.
const (
	// ReasonIssued (True): the token was delivered to the Secret.
	ReasonIssued Reason = "Issued"

	// ReasonSuspended (True): the key is issued, but verifiers refuse its token while spec.suspend is true.
	ReasonSuspended Reason = "Suspended"

	// ReasonIssuing (False): the operator is issuing the key.
	ReasonIssuing Reason = "Issuing"

	// ReasonExpired (False, terminal): the expiry time has passed. The key never becomes valid again.
	ReasonExpired Reason = "Expired"

	// ReasonSecretConflict (False): a Secret with the requested name exists, but does not belong to this key. The operator
	// never changes that Secret, and issues the key once the Secret is gone.
	ReasonSecretConflict Reason = "SecretConflict"

	// ReasonUnknownRole (False): the catalogue lacks a role of the key. The key is issued as soon as the role is created.
	ReasonUnknownRole Reason = "UnknownRole"

	// ReasonNotAllowed (False): no policy allows the key. The key is issued as soon as a policy does.
	ReasonNotAllowed Reason = "NotAllowed"

	// ReasonDeliveryRefused (False): the API server refuses the token Secret because of a quota, an admission policy or a
	// webhook. The operator retries with backoff, up to ten minutes between two attempts.
	ReasonDeliveryRefused Reason = "DeliveryRefused"
)

// ReadyReasons returns all reasons of Ready.
func ReadyReasons() []Reason {
	return []Reason{
		ReasonIssuing, ReasonSecretConflict, ReasonUnknownRole, ReasonNotAllowed, ReasonDeliveryRefused, ReasonIssued, ReasonSuspended,
		ReasonExpired,
	}
}

// IsReady reports whether Ready is True with this reason.
func (r Reason) IsReady() bool { return r == ReasonIssued || r == ReasonSuspended }

// IsStalled reports whether a key whose Ready has this reason is Stalled, too: it can't become Ready unless somebody acts.
func (r Reason) IsStalled() bool {
	return slices.Contains([]Reason{ReasonExpired, ReasonSecretConflict, ReasonUnknownRole, ReasonNotAllowed}, r)
}

// IsPending reports whether a key whose Ready has this reason may still be issued.
func (r Reason) IsPending() bool { return !r.IsReady() && r != ReasonExpired }

// RotationBlockedReasons returns all reasons of RotationBlocked.
func RotationBlockedReasons() []Reason {
	return []Reason{
		ReasonSecretConflict, ReasonSecretTaken, ReasonDeliveryRefused, ReasonNotAllowed, ReasonUnknownRole, ReasonInvalidRequest,
		ReasonWaiting,
	}
}

// Reasons of RotationBlocked, besides SecretConflict, UnknownRole, NotAllowed and DeliveryRefused.
const (
	// ReasonSecretTaken: a rotation by schedule is due, but the user has taken the token and deleted the Secret. The new token
	// would reach nobody.
	ReasonSecretTaken Reason = "SecretTaken"

	// ReasonWaiting: a rotation is requested and can't begin yet, because the overlap of the last one is not over, or because
	// that was less than a minute ago.
	ReasonWaiting Reason = "Waiting"

	// ReasonInvalidRequest: the value of the annotation that requests a rotation can't be read.
	ReasonInvalidRequest Reason = "InvalidRequest"
)

// Reasons of other conditions and of events.
const (
	// ReasonDeadlineNear is the reason of [ConditionExpiring].
	ReasonDeadlineNear Reason = "DeadlineNear"

	// ReasonClockSkewed is the reason of [ConditionClockSkewed].
	ReasonClockSkewed Reason = "ClockSkewed"

	// ReasonOutOfPolicy is the reason of [ConditionOutOfPolicy].
	ReasonOutOfPolicy Reason = "OutOfPolicy"

	// ReasonResumed is the reason of the event that says that spec.suspend is no longer true, so that verifiers accept the
	// token again.
	ReasonResumed Reason = "Resumed"

	// ReasonRotated is the reason of the event that says that a rotation replaced the token.
	ReasonRotated Reason = "Rotated"

	// ReasonTokenRetired is the reason of the event that says that the token before the last rotation is no longer accepted.
	ReasonTokenRetired Reason = "TokenRetired"

	// ReasonSecretWithdrawn is the reason of the event that says that the Secret was deleted because spec.secret.revealFor
	// had passed.
	ReasonSecretWithdrawn Reason = "SecretWithdrawn"

	// ReasonCollected is the reason of the event that says that the expired ApiKey was deleted after ttlAfterExpired.
	ReasonCollected Reason = "Collected"
)
