// Package lifecycle defines the states of a key, what is due in each state, and when to check the key again. It must not depend on
// Kubernetes, read a clock or write anything: [Plan] takes [Facts] and a [Verdict], and returns a [Step].
//
// To add a state:
//
//   - add a constant of type [State] and its line in states: its name, its stage and the moments that change it;
//   - add a case to [Record.State], and to [Record] the fields that identify the state;
//   - add rows to rows: the actions in the state and the states that they lead to; if an [Action] is new, add its line to actions;
//   - add its arrows to docs/lifecycle.md.
//
// The tests of this package fail until all of these are present and consistent.
package lifecycle

import (
	"slices"
	"time"
)

// State is the position of a key in its life. It follows from what is written about the key, not from the time: a key whose
// deadline has passed keeps its state until a controller has acted.
type State int

const (
	// Pending keys have no token and no reason but Issuing.
	Pending State = iota
	// Waiting keys are not allowed by roles or policies, and their status says so.
	Waiting
	// Held keys have a Secret that the API server refuses, and their status says so.
	Held
	// Committed keys have a digest in their status, which verifiers accept, but their token is not confirmed.
	Committed
	// Conflicted keys can't be delivered because a Secret that is not theirs has the name, and their status says so.
	Conflicted
	// Issued keys have a confirmed token. Only a rotation mints another one for them.
	Issued
	// Suspended keys are issued, but verifiers refuse their token, and their status says so.
	Suspended
	// Expired keys are permanently marked as expired, and are deleted after their ttlAfterExpired.
	Expired
	// Tombstone keys are expired keys that are kept.
	Tombstone
	// Deleting keys have a deletion timestamp.
	Deleting

	numStates
)

// stage groups states.
type stage int

const (
	unissued stage = iota
	issued
	over
)

// Urgency is how soon a key is reconciled, compared to others.
type Urgency int

const (
	// AsItCame keeps the key's priority in the queue.
	AsItCame Urgency = iota
	// Prompt is for issued keys, because they must expire in time.
	Prompt
	// AfterOthers is for keys that can't continue unless somebody acts.
	AfterOthers
)

// outMoments are the moments of keys that have a confirmed token.
var outMoments = []Moment{AtDeadline, AtRetirement, AtWithdrawal, AtRotation, AtWarning}

// states describes every state.
var states = [numStates]struct {
	name    string
	stage   stage
	urgency Urgency
	// moments are the times at which time alone changes something, the most important first.
	moments []Moment
	// awaitsRules says that only the rules keep the key in this state.
	awaitsRules bool
	// polled says that the key is also checked every MaxWait, in case the event that should advance it was missed.
	polled bool
}{
	Pending:    {name: "Pending", stage: unissued, moments: []Moment{AtDeadline}, awaitsRules: true, polled: true},
	Waiting:    {name: "Waiting", stage: unissued, moments: []Moment{AtDeadline, AtShortLife}, urgency: AfterOthers, awaitsRules: true},
	Held:       {name: "Held", stage: unissued, moments: []Moment{AtDeadline, AtShortLife}, urgency: AfterOthers, polled: true},
	Committed:  {name: "Committed", stage: unissued, moments: []Moment{AtDeadline}, polled: true},
	Conflicted: {name: "Conflicted", stage: unissued, moments: []Moment{AtDeadline}, urgency: AfterOthers, polled: true},
	Issued:     {name: "Issued", stage: issued, moments: outMoments, urgency: Prompt},
	Suspended:  {name: "Suspended", stage: issued, moments: outMoments, urgency: Prompt},
	Expired:    {name: "Expired", stage: over, moments: []Moment{AtCollection}, urgency: Prompt},
	Tombstone:  {name: "Tombstone", stage: over, urgency: Prompt},
	Deleting:   {name: "Deleting", stage: over},
}

// String returns the name of the state, as in docs/lifecycle.md.
func (s State) String() string { return states[s].name }

// Alive reports whether keys in this state are neither expired nor being deleted.
func (s State) Alive() bool { return states[s].stage != over }

// Unissued reports whether keys in this state are alive and have no confirmed token.
func (s State) Unissued() bool { return states[s].stage == unissued }

// Out reports whether keys in this state are alive and have a confirmed token.
func (s State) Out() bool { return states[s].stage == issued }

// Urgency returns how soon keys in this state are reconciled.
func (s State) Urgency() Urgency { return states[s].urgency }

// AwaitsRules reports whether keys in this state continue as soon as roles and policies allow them. Keys in other states are
// already being issued, or wait for something else.
func (s State) AwaitsRules() bool { return states[s].awaitsRules }

// unissuedStates, outStates and living are sets of states for use in rows.
var (
	unissuedStates = having(State.Unissued)
	outStates      = having(State.Out)
	living         = having(State.Alive)
)

func having(property func(State) bool) []State {
	var found []State
	for s := range states {
		if property(State(s)) {
			found = append(found, State(s))
		}
	}
	return found
}

// Moment is a point in a key's life at which time alone changes something.
type Moment int

const (
	// NoMoment is the zero value: no moment has come.
	NoMoment Moment = iota
	// AtDeadline is when the key expires.
	AtDeadline
	// AtWithdrawal is when the Secret of a valid key is deleted.
	AtWithdrawal
	// AtRetirement is when the token before the last rotation is no longer accepted.
	AtRetirement
	// AtRotation is when a rotation begins, or continues if it has begun.
	AtRotation
	// AtCollection is when an expired key is deleted.
	AtCollection
	// AtWarning is when the condition Expiring begins.
	AtWarning
	// AtShortLife is when the remaining lifetime of a pending key has become short enough for the rules.
	AtShortLife
)

// Told is what the condition Ready of a key says.
type Told int

const (
	// ToldNothing says that the key has no condition Ready.
	ToldNothing Told = iota
	// ToldIssuing says that the operator is issuing the key.
	ToldIssuing
	// ToldRules says that roles or policies do not allow the key.
	ToldRules
	// ToldDelivery says that the API server refuses the Secret.
	ToldDelivery
	// ToldConflict says that a Secret that is not the key's has the name.
	ToldConflict
	// ToldIssued says that the key is issued.
	ToldIssued
	// ToldSuspended says that the key is issued, and suspended.
	ToldSuspended
	// ToldExpired says that the key is marked as expired.
	ToldExpired
)

// Record is what is written about a key, except for durations, which must be parsed. The zero value is a key that has not
// been processed.
type Record struct {
	Told Told
	// Deleting says that the key has a deletion timestamp.
	Deleting bool
	// Committed says that the status has a digest.
	Committed bool
	// Issued says that the token was confirmed to be in its Secret, and IssuedAt when.
	Issued   bool
	IssuedAt time.Time
	// SecretNamed says that the status names a Secret. SecretDeleted says that the Secret was deleted, or need not be.
	SecretNamed, SecretDeleted bool
	// Suspend says that spec.suspend is true.
	Suspend bool
	// Rotation is what is written about rotations of the key.
	Rotation Rotation
	// ConflictSince is when the current Secret conflict began; zero if there is none or the time is unknown.
	ConflictSince time.Time
	// ClockSkewed says that the key has the condition ClockSkewed.
	ClockSkewed bool
	// KeptBy says what prevents the deletion of the expired key; "" if nothing does.
	KeptBy string
}

// Rotation is what is written about rotations of a key. The zero value is a key that was never rotated.
type Rotation struct {
	// Begun says that the status has a pending token, which verifiers accept, but which is not confirmed.
	Begun bool
	// Retiring says that the status has a retiring token: the one before the last rotation.
	Retiring bool
	// Requested says that a user requests a rotation. AtOnce says that its overlap is zero, so that it need not wait until the
	// retiring token is gone.
	Requested, AtOnce bool
	// RetireRequested says that a user requests the end of the retiring token.
	RetireRequested bool
	// Blocked says that the key has the condition RotationBlocked, and BlockedSince when it began.
	Blocked      bool
	BlockedSince time.Time
}

// State returns the state of the key. If the record contradicts itself, permanent facts win: a key that was ever marked as
// expired is never issued, and a key that was ever issued is never issued again.
func (r Record) State() State {
	switch {
	case r.Deleting:
		return Deleting
	case r.Told == ToldExpired && r.KeptBy != "":
		return Tombstone
	case r.Told == ToldExpired:
		return Expired
	case r.Issued && r.Told == ToldSuspended:
		return Suspended
	case r.Issued:
		return Issued
	case r.Told == ToldConflict:
		return Conflicted
	case r.Committed:
		return Committed
	case r.Told == ToldRules:
		return Waiting
	case r.Told == ToldDelivery:
		return Held
	default:
		return Pending
	}
}

// SecretLeft reports whether a Secret of this key may exist. A token that was removed before it was confirmed may have left
// one, and a rotation that has begun may have created one.
func (r Record) SecretLeft() bool {
	if r.Committed {
		return !r.SecretDeleted || r.Rotation.Begun
	}
	return r.SecretNamed
}

// Findable reports whether verifiers must load the key: it has a digest and is not being deleted. For expiry, see
// [Facts.AcceptedUntil].
func (r Record) Findable() bool { return r.Committed && !r.Deleting }

// Leads reports whether an action may take a key from one state to another. A key that is being deleted is not written, so
// no transition starts there.
func Leads(from, to State) bool {
	if from == to {
		return from != Deleting
	}
	return slices.ContainsFunc(rows, func(r row) bool { return slices.Contains(r.in, from) && slices.Contains(r.to, to) })
}
