// Package lifecycle states the life of a key once: which states there are, what is due in each, and when to look again. It knows nothing
// of Kubernetes, reads no clock and writes nothing; it is told [Facts] and a [Verdict], and answers with a [Step].
//
// To add a state (a suspended key, or one whose token is rotated):
//
//   - a constant of [State], with its line in states: its name, whether it is alive, which moments change it;
//   - a case in [Record.State], with what it is told by in [Record];
//   - rows in rows: what is done in it, and which states that leads to; if that is something new, an [Action] with its line in actions;
//   - its arrows in docs/lifecycle.md.
//
// The tests beside this fail until all of it is there and agrees.
package lifecycle

import (
	"slices"
	"time"
)

// State is where a key is in its life. It follows from what is written about the key, not from the time: a key whose deadline has passed
// is in its state until somebody has done something about it.
type State int

const (
	// Pending keys have no token, and have been told nothing but that the operator is at work.
	Pending State = iota
	// Waiting keys have been told that roles or policies do not allow them.
	Waiting
	// Held keys have been told that the API server refuses their Secret.
	Held
	// Committed keys have a digest in their status, which verifiers accept; the token has not been confirmed to be in its Secret.
	Committed
	// Conflicted keys have been told that a Secret that is not theirs stands where theirs should be.
	Conflicted
	// Issued keys have their token out. No other one is ever minted for them.
	Issued
	// Suspended keys are issued, and have been told that verifiers refuse their token until somebody resumes them.
	Suspended
	// Expired keys have been marked as such, for ever, and are deleted after a while.
	Expired
	// Tombstone keys have expired, and are kept.
	Tombstone
	// Deleting keys have been deleted by somebody, and have not gone yet.
	Deleting

	numStates
)

// stage is what states have in common.
type stage int

const (
	unissued stage = iota
	issued
	over
)

// Urgency is how soon a key is looked at, beside others.
type Urgency int

const (
	// AsItCame leaves a key where it is in the queue.
	AsItCame Urgency = iota
	// Prompt is for keys that are out: their deadline does not wait.
	Prompt
	// AfterOthers is for keys that can't go on unless somebody acts.
	AfterOthers
)

// states has a line for every state.
var states = [numStates]struct {
	name    string
	stage   stage
	urgency Urgency
	// moments are those at which the passing of time alone changes something, the weightiest first.
	moments []Moment
	// awaitsRules says that the state ends as soon as the rules allow the key, and that nothing else is at work on it.
	awaitsRules bool
	// polled says that a look now and then makes sure that the key is not forgotten, though somebody should bring it on.
	polled bool
}{
	Pending:    {name: "Pending", stage: unissued, moments: []Moment{AtDeadline}, awaitsRules: true, polled: true},
	Waiting:    {name: "Waiting", stage: unissued, moments: []Moment{AtDeadline, AtShortLife}, urgency: AfterOthers, awaitsRules: true},
	Held:       {name: "Held", stage: unissued, moments: []Moment{AtDeadline, AtShortLife}, urgency: AfterOthers, polled: true},
	Committed:  {name: "Committed", stage: unissued, moments: []Moment{AtDeadline}, polled: true},
	Conflicted: {name: "Conflicted", stage: unissued, moments: []Moment{AtDeadline}, urgency: AfterOthers, polled: true},
	Issued:     {name: "Issued", stage: issued, moments: []Moment{AtDeadline, AtWithdrawal, AtWarning}, urgency: Prompt},
	Suspended:  {name: "Suspended", stage: issued, moments: []Moment{AtDeadline, AtWithdrawal, AtWarning}, urgency: Prompt},
	Expired:    {name: "Expired", stage: over, moments: []Moment{AtCollection}, urgency: Prompt},
	Tombstone:  {name: "Tombstone", stage: over, urgency: Prompt},
	Deleting:   {name: "Deleting", stage: over},
}

// String is the state's name, as docs/lifecycle.md has it.
func (s State) String() string { return states[s].name }

// Alive tells whether a key of this state has neither expired nor been deleted.
func (s State) Alive() bool { return states[s].stage != over }

// Unissued tells whether a key of this state is alive, and has no confirmed token.
func (s State) Unissued() bool { return states[s].stage == unissued }

// Out tells whether a key of this state is alive, and its token was confirmed to be in its Secret.
func (s State) Out() bool { return states[s].stage == issued }

// Urgency is how soon a key of this state is looked at.
func (s State) Urgency() Urgency { return states[s].urgency }

// AwaitsRules tells whether a key of this state goes on as soon as roles and policies allow it. Others are gone on with already, or wait
// for something else.
func (s State) AwaitsRules() bool { return states[s].awaitsRules }

// unissuedStates, outStates and living are the states that rows speak of together.
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

// Moment is a point in a key's life at which the passing of time alone changes something.
type Moment int

const (
	// NoMoment is the zero value: none has come.
	NoMoment Moment = iota
	// AtDeadline the key is dead.
	AtDeadline
	// AtWithdrawal the Secret of a key that lives on is deleted.
	AtWithdrawal
	// AtCollection an expired key is deleted.
	AtCollection
	// AtWarning the last part of a key's life begins.
	AtWarning
	// AtShortLife what is left of the life of a key that waits is short enough for the rules.
	AtShortLife
)

// Told is the last thing that a key was told about whether it is ready.
type Told int

const (
	// ToldNothing says that nobody has told it anything yet.
	ToldNothing Told = iota
	// ToldIssuing says that the operator is at work.
	ToldIssuing
	// ToldRules says that roles or policies do not allow it.
	ToldRules
	// ToldDelivery says that the API server refuses its Secret.
	ToldDelivery
	// ToldConflict says that another's Secret is in the way.
	ToldConflict
	// ToldIssued says that its token is out.
	ToldIssued
	// ToldSuspended says that its token is out, and that verifiers refuse it.
	ToldSuspended
	// ToldExpired is the mark that it has expired.
	ToldExpired
)

// Record is what is written about a key, and needs no reading of durations. The zero value is a key that nobody has seen yet.
type Record struct {
	Told Told
	// Deleting says that somebody has deleted the key.
	Deleting bool
	// Committed says that there is the digest of a token.
	Committed bool
	// Issued says that a token was confirmed to be in its Secret, and IssuedAt when.
	Issued   bool
	IssuedAt time.Time
	// SecretNamed says that the status names a Secret; SecretDeleted, that it has been deleted, or need not be.
	SecretNamed, SecretDeleted bool
	// Suspend says that its user wants verifiers to refuse the token.
	Suspend bool
	// ConflictSince is since when another's Secret has been in the way; zero if none is, or nobody knows.
	ConflictSince time.Time
	// ClockSkewed says that the key was told that the operator's clock is wrong.
	ClockSkewed bool
	// KeptBy is what keeps the key once it has expired; "" if nothing does.
	KeptBy string
}

// State is the one state that a record makes. Where a record contradicts itself, what is for ever counts: a key that was ever marked as
// expired is never issued, and one that was ever issued is never issued again.
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

// SecretLeft tells whether there may be a Secret of this key's that nobody has deleted yet. A digest that was taken back may have left one.
func (r Record) SecretLeft() bool {
	if r.Committed {
		return !r.SecretDeleted
	}
	return r.SecretNamed
}

// Findable tells whether a verifier must know the key: it has a digest, and is not being deleted. That the key has expired is told by
// [Facts.AcceptedUntil].
func (r Record) Findable() bool { return r.Committed && !r.Deleting }

// Leads tells whether something that is done in a state may leave the key in another one. A key that is being deleted is not written, so
// that nothing leads on from there.
func Leads(from, to State) bool {
	if from == to {
		return from != Deleting
	}
	return slices.ContainsFunc(rows, func(r row) bool { return slices.Contains(r.in, from) && slices.Contains(r.to, to) })
}
