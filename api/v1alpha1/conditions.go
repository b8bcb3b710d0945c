package v1alpha1

// Condition types of an ApiKey.
const (
	// ConditionReady is True once the token has been issued and while the key may be used.
	ConditionReady = "Ready"

	// ConditionExpiring is present, and True, only in the last part of a key's life: one fifth of it,
	// at most 14 days. Its absence is the normal state.
	ConditionExpiring = "Expiring"

	// ConditionStalled is present, and True, while the key can't become Ready unless somebody acts. It
	// carries the reason of Ready, and is what kstatus (Flux, kpt) reads as a failure.
	ConditionStalled = "Stalled"

	// ConditionClockSkewed is present, and True, while the operator's clock and the API server's are too
	// far apart for a decision that depends on time. Nothing is issued, expired or deleted meanwhile.
	ConditionClockSkewed = "ClockSkewed"

	// ConditionOutOfPolicy is present, and True, while an issued key would not be issued again: no policy allows it
	// any more, or the catalogue lacks a role that it names. The key keeps working.
	ConditionOutOfPolicy = "OutOfPolicy"
)

// Reason is the reason of a condition, and of the event that tells of the same transition.
type Reason string

// Reasons of Ready.
const (
	// ReasonIssued (True): the token is in the Secret, or its user has claimed it from there.
	ReasonIssued Reason = "Issued"

	// ReasonSuspended (True): the token is issued, and verifiers refuse it while spec.suspend is true.
	ReasonSuspended Reason = "Suspended"

	// ReasonIssuing (False): the operator is at work on the key.
	ReasonIssuing Reason = "Issuing"

	// ReasonExpired (False, terminal): the deadline has passed. The key never comes back.
	ReasonExpired Reason = "Expired"

	// ReasonSecretConflict (False): a Secret of the wanted name exists that is not this key's. The
	// operator never touches it, and issues the key once it is gone.
	ReasonSecretConflict Reason = "SecretConflict"

	// ReasonUnknownRole (False): the key names a role that the catalogue lacks. It is issued as soon as the
	// role appears.
	ReasonUnknownRole Reason = "UnknownRole"

	// ReasonNotAllowed (False): no policy allows the key. It is issued as soon as one does.
	ReasonNotAllowed Reason = "NotAllowed"

	// ReasonDeliveryRefused (False): the API server refuses the key's Secret, for a quota or by an admission
	// policy or a webhook. It is tried again until that has changed, ever less often, every ten minutes at last.
	ReasonDeliveryRefused Reason = "DeliveryRefused"
)

// Reasons that no Ready condition has.
const (
	// ReasonDeadlineNear is the reason of Expiring.
	ReasonDeadlineNear Reason = "DeadlineNear"

	// ReasonClockSkewed is the reason of the condition of the same name.
	ReasonClockSkewed Reason = "ClockSkewed"

	// ReasonOutOfPolicy is the reason of the condition of the same name.
	ReasonOutOfPolicy Reason = "OutOfPolicy"

	// ReasonResumed tells, in an event, that spec.suspend was lifted and verifiers accept the token again.
	ReasonResumed Reason = "Resumed"

	// ReasonSecretWithdrawn tells, in an event, that the Secret was deleted because spec.secret.revealFor
	// had passed.
	ReasonSecretWithdrawn Reason = "SecretWithdrawn"

	// ReasonCollected tells, in an event, that the expired ApiKey was deleted after its ttlAfterExpired.
	ReasonCollected Reason = "Collected"
)
