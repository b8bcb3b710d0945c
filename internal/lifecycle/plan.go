package lifecycle

import (
	"slices"
	"time"
)

// Tolerance is the maximum skew of a clock on which irreversible actions may depend. It allows for the resolution of the
// Date header, a second, and for slow responses. A machine without time synchronization is off by minutes to years.
const Tolerance = 5 * time.Minute

// Verdict is what was found out about a key in addition to its facts. In the zero value nothing has been asked; [Plan] says
// what must be asked.
type Verdict struct {
	Rules Rules
	// Wait is the time after which the answer of the rules may change by itself; 0 means that it can't.
	Wait  time.Duration
	Gate  Gate
	Clock Clock
}

// Rules is the answer of roles and policies about a key.
type Rules int

const (
	// RulesUnasked says that the rules have not been asked.
	RulesUnasked Rules = iota
	// Unread says that the rules can't be asked because they are not loaded.
	Unread
	// Refused says that the rules do not allow the key.
	Refused
	// Allowed says that the rules allow the key.
	Allowed
)

// Gate says whether the delivery of a key may be tried now. A namespace gets a gate when the API server refuses a Secret in
// it.
type Gate int

const (
	// GateUnasked says that the gate has not been asked.
	GateUnasked Gate = iota
	// Open says that no Secret was refused in the namespace.
	Open
	// AskFirst says that a Secret was refused in the namespace. The key's first attempt begins with a dry run.
	AskFirst
	// Turn says that it is this key's turn to try, with a dry run, on behalf of all waiting keys.
	Turn
	// Shut says that it is not this key's turn.
	Shut
)

// Clock says whether the operator's clock is right.
type Clock int

const (
	// ClockUnasked says that the clock has not been measured.
	ClockUnasked Clock = iota
	// Right says that the skew is within [Tolerance].
	Right
	// Wrong says that the skew exceeds [Tolerance].
	Wrong
)

// ClockOff judges a clock by its skew, which may be negative.
func ClockOff(skew time.Duration) Clock {
	if skew.Abs() > Tolerance {
		return Wrong
	}
	return Right
}

// maxJump is how far a clock may move while its skew is measured. A pass must be shorter.
const maxJump = time.Minute

// Jumped reports whether the clock was set between two readings. A pass judges a key by one reading of the clock, and measures the
// skew later. If the clock was set in between, the skew says nothing about that reading, and the pass must start again.
func Jumped(before, after time.Time) bool {
	// Without monotonic readings, which hide that the clock was set.
	return after.Round(0).Sub(before.Round(0)).Abs() > maxJump
}

// Action is the next thing to do about a key.
type Action int

const (
	// Nothing does nothing, and writes no status.
	Nothing Action = iota

	// AskRules asks roles and policies; then plan again.
	AskRules
	// AskGate asks whether delivery may be tried; then plan again.
	AskGate
	// AskClock asks whether the clock is right; then plan again.
	AskClock

	// TellUnread writes to the status that the rules are not loaded.
	TellUnread
	// TellSkew writes to the status that the clock is wrong, and leaves the rest as it is.
	TellSkew
	// Settle updates the status for the time and the rules. The key stays in its state.
	Settle
	// Hold is [Settle] for a key that waits for its turn at the gate.
	Hold
	// Refuse writes to the status that roles or policies do not allow the key.
	Refuse
	// TakeBack is [Refuse] for a key that may have a token: its digest and its Secret are removed.
	TakeBack

	// Issue commits, delivers and confirms a new token.
	Issue
	// Try is [Issue] after a dry run.
	Try
	// Resume continues after a commit that was not confirmed.
	Resume

	// Suspend writes to the status that the key is suspended. Verifiers do not wait for that: they read the spec.
	Suspend
	// Lift writes to the status that the key is no longer suspended.
	Lift

	// Rotate commits, delivers and confirms a new token for an issued key. The token before it retires.
	Rotate
	// ResumeRotation continues a rotation that was not confirmed.
	ResumeRotation
	// BlockRotation writes to the status that roles or policies do not allow the rotation that is due.
	BlockRotation
	// Retire removes the digest of the retiring token, because its overlap has passed.
	Retire
	// RetireNow is [Retire] on request.
	RetireNow

	// Withdraw deletes the Secret of a valid key.
	Withdraw
	// Expire deletes the Secret and marks the key as expired.
	Expire
	// Collect deletes the key itself. For controllers that do not delete keys it means [Settle].
	Collect

	numActions
)

// actions describes every action.
var actions = [numActions]struct {
	name string
	// byTime says that the action needs a right clock: it writes a permanent time, or deletes something irrecoverably.
	byTime bool
	// settles says that the action updates the whole status. If the key has the condition ClockSkewed, it needs a right clock too.
	settles bool
	// rotates says that the action tries a rotation. leaves says that the action changes the facts so that it is not planned again.
	// If such an action is still due after a pass, the pass did something more important.
	rotates, leaves bool
	// asks says that the action finds out a part of the verdict.
	asks bool
}{
	Nothing:    {name: "Nothing"},
	AskRules:   {name: "AskRules", asks: true},
	AskGate:    {name: "AskGate", asks: true},
	AskClock:   {name: "AskClock", asks: true},
	TellUnread: {name: "TellUnread"},
	TellSkew:   {name: "TellSkew"},
	Settle:     {name: "Settle", settles: true},
	Hold:       {name: "Hold", settles: true},
	Refuse:     {name: "Refuse", settles: true},
	TakeBack:   {name: "TakeBack", byTime: true},
	Issue:      {name: "Issue", byTime: true},
	Try:        {name: "Try", byTime: true},
	Resume:     {name: "Resume", byTime: true},
	Suspend:    {name: "Suspend", settles: true, leaves: true},
	Lift:       {name: "Lift", settles: true, leaves: true},

	Rotate:         {name: "Rotate", byTime: true, rotates: true, leaves: true},
	ResumeRotation: {name: "ResumeRotation", byTime: true, rotates: true, leaves: true},
	BlockRotation:  {name: "BlockRotation", settles: true},
	Retire:         {name: "Retire", byTime: true, leaves: true},
	RetireNow:      {name: "RetireNow", settles: true, leaves: true},

	Withdraw: {name: "Withdraw", byTime: true, leaves: true},
	Expire:   {name: "Expire", byTime: true},
	Collect:  {name: "Collect", byTime: true},
}

// String returns the name of the action.
func (a Action) String() string { return actions[a].name }

// row says what to do in some states. A field that is not set matches everything.
type row struct {
	in    []State
	due   Moment
	rules []Rules
	gate  []Gate
	// left says that the key may have a token that is committed, or not completely removed.
	left bool
	// suspend says that spec.suspend is true, and resume that it is not.
	suspend, resume bool
	// retire says that the end of the retiring token is requested.
	retire bool
	// begun says that a rotation has begun, and free that it is not blocked.
	begun, free bool

	do Action
	// to are the other states to which the action may lead.
	to  []State
	why string
}

// rows are everything that is ever done about a key. The first matching row applies.
var rows = []row{
	{in: []State{Deleting}, do: Nothing, why: "it is being deleted"},
	{in: []State{Expired}, due: AtCollection, do: Collect, why: "its ttlAfterExpired has passed"},
	{in: []State{Expired, Tombstone}, do: Settle, why: "it has expired"},
	{in: living, due: AtDeadline, do: Expire, to: []State{Expired, Tombstone}, why: "its deadline has passed"},
	{in: living, rules: []Rules{RulesUnasked}, do: AskRules, why: "roles and policies have not been asked"},

	{in: outStates, due: AtRetirement, do: Retire, why: "its overlap has passed"},
	{in: outStates, retire: true, do: RetireNow, why: "the end of its retiring token was requested"},
	// Before the Secret is withdrawn, because the Secret may hold the new token already.
	{in: outStates, begun: true, free: true, do: ResumeRotation, why: "its rotation was begun but not confirmed"},
	{in: outStates, due: AtWithdrawal, do: Withdraw, why: "its revealFor has passed"},
	{in: []State{Issued}, suspend: true, do: Suspend, to: []State{Suspended}, why: "spec.suspend is true"},
	{in: []State{Suspended}, resume: true, do: Lift, to: []State{Issued}, why: "spec.suspend is no longer true"},
	{in: outStates, due: AtRotation, begun: true, do: ResumeRotation, why: "its rotation was begun but not confirmed"},
	{in: outStates, due: AtRotation, rules: []Rules{Allowed}, do: Rotate, why: "a rotation is due"},
	{in: outStates, due: AtRotation, rules: []Rules{Refused}, do: BlockRotation, why: "a rotation is due, but roles or policies refuse it"},
	{in: []State{Suspended}, do: Settle, why: "it is suspended"},
	{in: []State{Issued}, do: Settle, why: "it is issued"},

	{in: []State{Pending}, rules: []Rules{Unread}, do: TellUnread, why: "roles and policies can't be read"},
	{in: unissuedStates, rules: []Rules{Unread}, do: Nothing, why: "roles and policies can't be read, so its status stays"},
	{
		in: unissuedStates, rules: []Rules{Refused}, left: true, do: TakeBack,
		to: []State{Waiting}, why: "roles or policies refuse it, and it may have a token",
	},
	{in: unissuedStates, rules: []Rules{Refused}, do: Refuse, to: []State{Waiting}, why: "roles or policies refuse it"},
	{in: unissuedStates, rules: []Rules{Allowed}, gate: []Gate{GateUnasked}, do: AskGate, why: "the gate of its namespace has not been asked"},
	{in: unissuedStates, rules: []Rules{Allowed}, gate: []Gate{Shut}, do: Hold, why: "it is not its turn"},

	{
		in: []State{Committed, Conflicted}, rules: []Rules{Allowed}, gate: []Gate{Open, AskFirst, Turn}, do: Resume,
		to: []State{Committed, Conflicted, Held, Issued, Suspended}, why: "its token was committed but not confirmed",
	},
	{
		in: []State{Pending, Waiting}, rules: []Rules{Allowed}, gate: []Gate{Open}, do: Issue,
		to: []State{Committed}, why: "roles and policies allow it",
	},
	{
		in: []State{Pending, Waiting, Held}, rules: []Rules{Allowed}, gate: []Gate{Open, AskFirst, Turn}, do: Try,
		to: []State{Committed, Held}, why: "roles and policies allow it, and the API server has refused Secrets of its namespace",
	},
}

func (r row) matches(record Record, due Moment, verdict Verdict) bool {
	return slices.Contains(r.in, record.State()) &&
		(r.due == NoMoment || r.due == due) &&
		(r.rules == nil || slices.Contains(r.rules, verdict.Rules)) &&
		(r.gate == nil || slices.Contains(r.gate, verdict.Gate)) &&
		(record.Committed || record.SecretNamed || !r.left) &&
		(record.Suspend || !r.suspend) && (!record.Suspend || !r.resume) &&
		(record.Rotation.RetireRequested || !r.retire) &&
		(record.Rotation.Begun || !r.begun) && (!record.Rotation.Blocked || !r.free)
}

// Step is the result of [Plan].
type Step struct {
	State State
	// Due is the most important moment that has come.
	Due    Moment
	Action Action
	// Why gives the reason for the action, for the log.
	Why string
	// NeedsClock says that the planned action needs a right clock. Unless the verdict says that the clock is right, Action is
	// [AskClock] or [TellSkew] instead.
	NeedsClock bool
	// Again is when to check the key again if its facts do not change.
	Again Look
}

// After returns when to check the key again after a pass that did done, if the step was planned from the facts that the pass left.
// It is at once if the pass did something more important than what is due: then the clock may not have been asked, or the status
// does not say yet that a rotation is refused.
func (s Step) After(done Action) Look {
	if actions[s.Action].asks || s.Action == BlockRotation && done != BlockRotation {
		return Look{delay: atOnce}
	}
	return s.Again
}

// Plan returns what to do about a key now. Either a part of the verdict must be found out, after which Plan is called again,
// or one action is due. If no row matches, nothing is done.
func Plan(facts Facts, verdict Verdict, now time.Time) Step {
	state := facts.State()
	step := Step{State: state, Due: facts.due(verdict, now)}
	i := slices.IndexFunc(rows, func(r row) bool { return r.matches(facts.Record, step.Due, verdict) })
	if i < 0 {
		step.Why = "no rule applies to it"
		step.Again = Look{delay: MaxWait}
		return step
	}
	step.Action, step.Why = rows[i].do, rows[i].why
	step.NeedsClock = actions[step.Action].byTime || facts.ClockSkewed && actions[step.Action].settles
	if step.NeedsClock {
		switch verdict.Clock {
		case Right:
		case Wrong:
			step.Action = TellSkew
		default:
			step.Action = AskClock
		}
	}
	step.Again = facts.again(step.Action, verdict, now)
	return step
}
