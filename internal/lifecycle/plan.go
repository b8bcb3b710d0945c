package lifecycle

import (
	"slices"
	"time"
)

// Tolerance is the skew up to which a clock is right: fit for what can't be taken back. The time that a server tells is whole seconds old,
// and a slow answer adds to it, while a machine without time synchronisation is off by minutes to years.
const Tolerance = 5 * time.Minute

// Verdict is what was found out besides the key itself. The zero value says that nothing has been asked yet; [Plan] says what must be.
type Verdict struct {
	Rules Rules
	// Wait is how long until the passing of time alone may change what the rules say; 0 means that it can't.
	Wait  time.Duration
	Gate  Gate
	Clock Clock
}

// Rules is what roles and policies say of a key.
type Rules int

const (
	// RulesUnasked says that nobody has asked them.
	RulesUnasked Rules = iota
	// Unread says that they can't be asked, as they have not been read.
	Unread
	// Refused says that they do not allow the key.
	Refused
	// Allowed says that they allow it.
	Allowed
)

// Gate is whether the Secret of a key may be tried now, where the API server has refused others of its namespace.
type Gate int

const (
	// GateUnasked says that nobody has asked.
	GateUnasked Gate = iota
	// Open says that nothing was refused there: the Secret may be tried.
	Open
	// AskFirst says that a Secret was refused there. The key's own first attempt is made by a dry run.
	AskFirst
	// Turn says that the key asks for all that wait there, by a dry run.
	Turn
	// Shut says that it is not this key's turn.
	Shut
)

// Clock is whether the clock that now was read from is right.
type Clock int

const (
	// ClockUnasked says that nobody has measured it.
	ClockUnasked Clock = iota
	// Right says that it is within [Tolerance].
	Right
	// Wrong says that it is not.
	Wrong
)

// ClockOff judges a clock by its skew, of either sign.
func ClockOff(skew time.Duration) Clock {
	if skew.Abs() > Tolerance {
		return Wrong
	}
	return Right
}

// Action is the one thing to do next.
type Action int

const (
	// Nothing is not even a write.
	Nothing Action = iota

	// AskRules asks what roles and policies say, for another plan.
	AskRules
	// AskGate asks whether the key's Secret may be tried, for another plan.
	AskGate
	// AskClock asks whether the clock is right, for another plan.
	AskClock

	// TellUnread tells that the rules have not been read.
	TellUnread
	// TellSkew tells that the clock is wrong, and leaves everything else as it is.
	TellSkew
	// Settle tells what has changed by the passing of time, or by the rules, for a key that stays in its state.
	Settle
	// Hold is Settle for a key that waits for its turn at the gate.
	Hold
	// Refuse tells that roles or policies do not allow the key.
	Refuse
	// TakeBack is Refuse for a key that may have a token: its digest and its Secret go.
	TakeBack

	// Issue mints a token, commits its digest, delivers it and confirms that.
	Issue
	// Try is Issue after a dry run.
	Try
	// Resume goes on where a commit was not followed by a confirmation.
	Resume

	// Suspend tells that verifiers refuse the token. They do so by the spec, whether it is told or not.
	Suspend
	// Lift tells that they accept it again.
	Lift

	// Withdraw deletes the Secret of a key that lives on.
	Withdraw
	// Expire deletes the Secret and marks the key as expired.
	Expire
	// Collect deletes the key itself. Who does not delete keys settles it.
	Collect

	numActions
)

// actions has a line for every action.
var actions = [numActions]struct {
	name string
	// byTime says that it writes a time for ever, or deletes what can't be had again. It hangs on a right clock.
	byTime bool
	// settles says that it brings the whole status up to date: a key that was told of a wrong clock is told more only by a right one.
	settles bool
}{
	Nothing:    {name: "Nothing"},
	AskRules:   {name: "AskRules"},
	AskGate:    {name: "AskGate"},
	AskClock:   {name: "AskClock"},
	TellUnread: {name: "TellUnread"},
	TellSkew:   {name: "TellSkew"},
	Settle:     {name: "Settle", settles: true},
	Hold:       {name: "Hold", settles: true},
	Refuse:     {name: "Refuse", settles: true},
	TakeBack:   {name: "TakeBack", byTime: true},
	Issue:      {name: "Issue", byTime: true},
	Try:        {name: "Try", byTime: true},
	Resume:     {name: "Resume", byTime: true},
	Suspend:    {name: "Suspend", settles: true},
	Lift:       {name: "Lift", settles: true},
	Withdraw:   {name: "Withdraw", byTime: true},
	Expire:     {name: "Expire", byTime: true},
	Collect:    {name: "Collect", byTime: true},
}

// String is the action's name.
func (a Action) String() string { return actions[a].name }

// row says what is done in some states. A field that is not set matches everything.
type row struct {
	in    []State
	due   Moment
	rules []Rules
	gate  []Gate
	// left says that the key may have a token, committed, or taken back halfway.
	left bool
	// suspend says that the user wants the key suspended.
	suspend bool

	do Action
	// to are the other states that the key may come to by this.
	to  []State
	why string
}

// rows are all that is ever done about a key. The first row that matches counts.
var rows = []row{
	{in: []State{Deleting}, do: Nothing, why: "somebody has deleted it"},
	{in: []State{Expired}, due: AtCollection, do: Collect, why: "its ttlAfterExpired has passed"},
	{in: []State{Expired, Tombstone}, do: Settle, why: "it has expired"},
	{in: living, due: AtDeadline, do: Expire, to: []State{Expired, Tombstone}, why: "its deadline has passed"},
	{in: living, rules: []Rules{RulesUnasked}, do: AskRules, why: "roles and policies have not been asked"},

	{in: outStates, due: AtWithdrawal, do: Withdraw, why: "its revealFor has passed"},
	{in: []State{Issued}, suspend: true, do: Suspend, to: []State{Suspended}, why: "spec.suspend is set"},
	{in: []State{Suspended}, suspend: true, do: Settle, why: "its token is out, and suspended"},
	{in: []State{Suspended}, do: Lift, to: []State{Issued}, why: "spec.suspend is not set any more"},
	{in: []State{Issued}, do: Settle, why: "its token is out"},

	{in: []State{Pending}, rules: []Rules{Unread}, do: TellUnread, why: "roles and policies can't be read"},
	{in: unissuedStates, rules: []Rules{Unread}, do: Nothing, why: "roles and policies can't be read, and what it was told stays"},
	{
		in: unissuedStates, rules: []Rules{Refused}, left: true, do: TakeBack,
		to: []State{Waiting}, why: "roles or policies refuse it, and it may have a token",
	},
	{in: unissuedStates, rules: []Rules{Refused}, do: Refuse, to: []State{Waiting}, why: "roles or policies refuse it"},
	{in: unissuedStates, rules: []Rules{Allowed}, gate: []Gate{GateUnasked}, do: AskGate, why: "its namespace's gate has not been asked"},
	{in: unissuedStates, rules: []Rules{Allowed}, gate: []Gate{Shut}, do: Hold, why: "it is not its turn"},

	{
		in: []State{Committed, Conflicted}, rules: []Rules{Allowed}, gate: []Gate{Open, AskFirst, Turn}, do: Resume,
		to: []State{Committed, Conflicted, Held, Issued, Suspended}, why: "its token was committed, and not confirmed",
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
		(record.Suspend || !r.suspend)
}

// Step is what [Plan] answers.
type Step struct {
	State State
	// Due is the weightiest moment that has come.
	Due    Moment
	Action Action
	// Why says in words what made it so, for the log.
	Why string
	// NeedsClock says that what is to be done hangs on a right clock. Unless the verdict says that the clock is right, Action is to ask for
	// that, or to tell that it is wrong.
	NeedsClock bool
	// Again is when to look at the key again, if it is then as the facts say now.
	Again Look
}

// Plan says what is to be done about a key now. Either a part of the verdict must be asked for, and then there is another plan, or one thing
// is due. Where no row matches, nothing is done.
func Plan(facts Facts, verdict Verdict, now time.Time) Step {
	state := facts.State()
	step := Step{State: state, Due: facts.due(verdict, now)}
	i := slices.IndexFunc(rows, func(r row) bool { return r.matches(facts.Record, step.Due, verdict) })
	if i < 0 {
		step.Why = "nothing is known to be done about it"
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
