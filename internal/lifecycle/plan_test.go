package lifecycle

import (
	"slices"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

// The verdicts that rows tell apart, in the order of the columns of TestEveryStateAndVerdict.
var verdicts = []struct {
	name    string
	verdict Verdict
}{
	{"unasked", Verdict{}},
	{"unread", Verdict{Rules: Unread}},
	{"refused", Verdict{Rules: Refused}},
	{"allowed", Verdict{Rules: Allowed}},
	{"open", Verdict{Rules: Allowed, Gate: Open}},
	{"ask first", Verdict{Rules: Allowed, Gate: AskFirst}},
	{"turn", Verdict{Rules: Allowed, Gate: Turn}},
	{"shut", Verdict{Rules: Allowed, Gate: Shut}},
}

func always(a Action) []Action { return slices.Repeat([]Action{a}, len(verdicts)) }

// later is always, once the rules have been asked.
func later(a Action) []Action { return append([]Action{AskRules}, always(a)[1:]...) }

// What is done in every state by every verdict, while nothing is due and the clock is right.
func TestEveryStateAndVerdict(t *testing.T) {
	table := map[State][]Action{
		//            unasked   unread      refused   allowed  open    ask first  turn    shut
		Pending:    {AskRules, TellUnread, Refuse, AskGate, Issue, Try, Try, Hold},
		Waiting:    {AskRules, Nothing, Refuse, AskGate, Issue, Try, Try, Hold},
		Held:       {AskRules, Nothing, Refuse, AskGate, Try, Try, Try, Hold},
		Committed:  {AskRules, Nothing, TakeBack, AskGate, Resume, Resume, Resume, Hold},
		Conflicted: {AskRules, Nothing, TakeBack, AskGate, Resume, Resume, Resume, Hold},
		Issued:     later(Settle),
		Suspended:  later(Settle),
		Expired:    always(Settle),
		Tombstone:  always(Settle),
		Deleting:   always(Nothing),
	}
	for _, state := range allStates() {
		row, ok := table[state]
		if !ok || len(row) != len(verdicts) {
			t.Errorf("no row for %s, or one of %d columns", state, len(row))
			continue
		}
		for i, c := range verdicts {
			c.verdict.Clock = Right
			step := Plan(sample(t, state), c.verdict, noon)
			if step.State != state || step.Action != row[i] || step.Why == "" {
				t.Errorf("%s, %s: %s in %s since %q, want %s", state, c.name, step.Action, step.State, step.Why, row[i])
			}
		}
	}
}

// What is done once a moment has come. What has come in a state that it does not concern changes nothing there.
func TestEveryStateAndMoment(t *testing.T) {
	for name, c := range map[string]struct {
		moment Moment
		set    func(*Facts)
		in     []State
		do     Action
		asking bool // the rules are asked before
	}{
		"deadline":   {AtDeadline, func(f *Facts) { f.Deadline, f.Life = expiry.At(noon), 0 }, living, Expire, false},
		"withdrawal": {AtWithdrawal, func(f *Facts) { f.WithdrawAt = noon }, []State{Issued, Suspended}, Withdraw, true},
		"collection": {AtCollection, func(f *Facts) { f.CollectAt = noon }, []State{Expired}, Collect, false},
		"retirement": {AtRetirement, func(f *Facts) { f.Rotation.Retiring, f.RetiresAt = true, noon }, []State{Issued, Suspended}, Retire, true},
		"warning": {AtWarning, func(f *Facts) {
			f.Deadline, f.Life, f.IssuedAt = expiry.At(noon.Add(2*time.Hour)), 0, noon.Add(-8*time.Hour)
		}, []State{Issued, Suspended}, Settle, true},
	} {
		for _, state := range allStates() {
			facts := sample(t, state)
			c.set(&facts)
			for _, v := range verdicts {
				v.verdict.Clock = Right
				want, due := Plan(sample(t, state), v.verdict, noon).Action, NoMoment
				if slices.Contains(c.in, state) {
					due = c.moment
					if !c.asking || v.verdict.Rules != RulesUnasked {
						want = c.do
					}
				}
				if got := Plan(facts, v.verdict, noon); got.Action != want || got.Due != due {
					t.Errorf("%s of a key that is %s, %s: %s, want %s; due: %d, want %d", name, state, v.name, got.Action, want, got.Due, due)
				}
			}
		}
	}
}

// The moment itself counts as come, and a nanosecond before it does not.
func TestBoundaries(t *testing.T) {
	allowed := Verdict{Rules: Allowed, Gate: Open, Clock: Right}
	at := func(state State, change func(*Facts)) Facts {
		facts := sample(t, state)
		change(&facts)
		return facts
	}
	deadline := func(f *Facts) { f.Deadline, f.Life = expiry.At(noon), 0 }
	for name, c := range map[string]struct {
		facts        Facts
		verdict      Verdict
		before, from Action
		due          Moment
	}{
		"deadline of a pending key":    {at(Pending, deadline), allowed, Issue, Expire, AtDeadline},
		"deadline of a waiting key":    {at(Waiting, deadline), Verdict{Rules: Refused, Clock: Right}, Refuse, Expire, AtDeadline},
		"deadline of a held key":       {at(Held, deadline), Verdict{Rules: Allowed, Gate: Shut, Clock: Right}, Hold, Expire, AtDeadline},
		"deadline of a committed key":  {at(Committed, deadline), allowed, Resume, Expire, AtDeadline},
		"deadline of a conflicted key": {at(Conflicted, deadline), allowed, Resume, Expire, AtDeadline},
		"deadline of a suspended key":  {at(Suspended, deadline), allowed, Settle, Expire, AtDeadline},
		"deadline of an issued key":    {at(Issued, deadline), allowed, Settle, Expire, AtDeadline},
		"withdrawal":                   {at(Issued, func(f *Facts) { f.WithdrawAt = noon }), allowed, Settle, Withdraw, AtWithdrawal},
		"retirement": {
			at(Issued, func(f *Facts) { f.Rotation.Retiring, f.RetiresAt = true, noon }), allowed, Settle, Retire, AtRetirement,
		},
		"rotation by schedule":        {at(Issued, func(f *Facts) { f.NextRotationAt = noon }), allowed, Settle, Rotate, AtRotation},
		"rotation of a suspended key": {at(Suspended, func(f *Facts) { f.NextRotationAt = noon }), allowed, Settle, Rotate, AtRotation},
		"rotation that the rules refuse": {
			at(Issued, func(f *Facts) { f.NextRotationAt = noon }), Verdict{Rules: Refused, Clock: Right}, Settle, BlockRotation, AtRotation,
		},
		"rotation a minute after the last": {
			at(Issued, func(f *Facts) { f.Rotation.Requested, f.RotatedAt = true, noon.Add(-time.Minute) }), allowed, Settle, Rotate, AtRotation,
		},
		"rotation after the overlap": {
			at(Issued, func(f *Facts) {
				f.Rotation = Rotation{Requested: true, Retiring: true}
				f.RotatedAt, f.RetiresAt = noon.Add(-time.Hour), noon
			}), allowed, Settle, Retire, AtRetirement,
		},
		"collection": {at(Expired, func(f *Facts) { f.CollectAt = noon }), allowed, Settle, Collect, AtCollection},
		"warning": {
			at(Issued, func(f *Facts) { f.Deadline, f.IssuedAt = expiry.At(noon.Add(2*time.Hour)), noon.Add(-8*time.Hour) }), allowed,
			Settle, Settle, AtWarning,
		},
	} {
		for offset, want := range map[time.Duration]Action{-1: c.before, 0: c.from, 1: c.from} {
			step := Plan(c.facts, c.verdict, noon.Add(offset))
			if step.Action != want || (step.Due == c.due) != (offset >= 0) {
				t.Errorf("%s, %dns: %s, want %s; due: %t", name, offset, step.Action, want, step.Due == c.due)
			}
			if wait := step.Again.Wait(noon.Add(offset)); offset < 0 && wait != time.Millisecond {
				t.Errorf("%s, %dns: looked at again after %s", name, offset, wait)
			}
		}
	}
}

// A key that is out is told of its suspension and of the end of that. Nothing else waits for either.
func TestSuspension(t *testing.T) {
	allowed := Verdict{Rules: Allowed, Gate: Open, Clock: Right}
	for _, state := range allStates() {
		for suspend, want := range map[bool]Action{true: Suspend, false: Lift} {
			facts := sample(t, state)
			told := facts.Told
			facts.Suspend = suspend
			got := Plan(facts, allowed, noon)
			switch {
			case suspend && told == ToldIssued && state.Out(), !suspend && state == Suspended:
				if got.Action != want || got.NeedsClock {
					t.Errorf("%s, suspend %t: %s, want %s; needs a right clock: %t", state, suspend, got.Action, want, got.NeedsClock)
				}
			default:
				facts.Suspend = sample(t, state).Suspend
				if same := Plan(facts, allowed, noon); got.Action != same.Action {
					t.Errorf("%s, suspend %t: %s, where else it is %s", state, suspend, got.Action, same.Action)
				}
			}
			facts.Deadline, facts.Life, facts.Suspend = expiry.At(noon), 0, suspend
			if state.Alive() && Plan(facts, allowed, noon).Action != Expire {
				t.Errorf("%s, suspend %t, at its deadline: %s", state, suspend, Plan(facts, allowed, noon).Action)
			}
		}
	}
}

// What hangs on a right clock is not planned by a wrong one, and not by one that nobody has measured.
func TestClock(t *testing.T) {
	allowed := Verdict{Rules: Allowed, Gate: Open}
	due := func(state State, change func(*Facts)) Facts {
		facts := sample(t, state)
		change(&facts)
		return facts
	}
	skewed := func(f *Facts) { f.ClockSkewed = true }
	for name, c := range map[string]struct {
		facts   Facts
		verdict Verdict
		want    Action
		needs   bool
	}{
		"issue":             {sample(t, Pending), allowed, Issue, true},
		"try":               {sample(t, Held), Verdict{Rules: Allowed, Gate: Turn}, Try, true},
		"resume":            {sample(t, Committed), allowed, Resume, true},
		"take back":         {sample(t, Committed), Verdict{Rules: Refused}, TakeBack, true},
		"take back the end": {due(Waiting, func(f *Facts) { f.SecretNamed = true }), Verdict{Rules: Refused}, TakeBack, true},
		"expire":            {due(Waiting, func(f *Facts) { f.Deadline, f.Life = expiry.At(noon), 0 }), Verdict{}, Expire, true},
		"withdraw":          {due(Issued, func(f *Facts) { f.WithdrawAt = noon }), allowed, Withdraw, true},
		"retire":            {due(Issued, func(f *Facts) { f.Rotation.Retiring, f.RetiresAt = true, noon }), allowed, Retire, true},
		"rotate":            {due(Issued, func(f *Facts) { f.Rotation.Requested = true }), allowed, Rotate, true},
		"resume a rotation": {due(Issued, func(f *Facts) { f.Rotation.Begun = true }), allowed, ResumeRotation, true},
		"collect":           {due(Expired, func(f *Facts) { f.CollectAt = noon }), Verdict{}, Collect, true},

		"retire now":       {due(Issued, func(f *Facts) { f.Rotation.RetireRequested = true }), allowed, RetireNow, false},
		"block a rotation": {due(Issued, func(f *Facts) { f.Rotation.Requested = true }), Verdict{Rules: Refused}, BlockRotation, false},

		"refuse": {sample(t, Pending), Verdict{Rules: Refused}, Refuse, false},
		"hold":   {sample(t, Held), Verdict{Rules: Allowed, Gate: Shut}, Hold, false},
		"settle": {sample(t, Issued), allowed, Settle, false},
		"unread": {due(Pending, skewed), Verdict{Rules: Unread}, TellUnread, false},

		"refuse, told of a wrong clock": {due(Waiting, skewed), Verdict{Rules: Refused}, Refuse, true},
		"hold, told of a wrong clock":   {due(Held, skewed), Verdict{Rules: Allowed, Gate: Shut}, Hold, true},
		"settle, told of a wrong clock": {due(Tombstone, skewed), Verdict{}, Settle, true},
		"deleted, and told of one":      {due(Deleting, skewed), Verdict{}, Nothing, false},
	} {
		for clock, want := range map[Clock]Action{ClockUnasked: AskClock, Right: c.want, Wrong: TellSkew} {
			if !c.needs {
				want = c.want
			}
			c.verdict.Clock = clock
			step := Plan(c.facts, c.verdict, noon)
			if step.Action != want || step.NeedsClock != c.needs {
				t.Errorf("%s, clock %d: %s, want %s; needs a right clock: %t", name, clock, step.Action, want, step.NeedsClock)
			}
			if step.Action == TellSkew && step.Again.Wait(noon) != time.Minute {
				t.Errorf("%s: looked at again after %s", name, step.Again.Wait(noon))
			}
		}
	}
}

func TestWhenToLookAgain(t *testing.T) {
	soon := noon.Add(time.Minute)
	settled := func(state State, change func(*Facts)) Facts {
		facts := sample(t, state)
		if change != nil {
			change(&facts)
		}
		return facts
	}
	deadline := func(f *Facts) { f.Deadline, f.Life = expiry.At(soon), 0 }
	never := func(f *Facts) { f.Deadline, f.Life = expiry.Never(), 0 }
	conflict := func(age time.Duration) func(*Facts) {
		return func(f *Facts) { f.ConflictSince = noon.Add(-age) }
	}
	blocked := func(age time.Duration) func(*Facts) {
		return func(f *Facts) { f.Rotation = Rotation{Requested: true, Blocked: true, BlockedSince: noon.Add(-age)} }
	}
	begun := func(f *Facts) {
		f.Rotation = Rotation{Begun: true, Blocked: true, BlockedSince: noon.Add(-time.Minute)}
	}
	allowed := Verdict{Rules: Allowed, Gate: Open, Clock: Right}
	refused, shut := Verdict{Rules: Refused}, Verdict{Rules: Allowed, Gate: Shut}
	for name, c := range map[string]struct {
		facts   Facts
		verdict Verdict
		want    time.Duration
	}{
		"pending, its life has not begun": {settled(Pending, nil), Verdict{}, MaxWait},
		"pending, with a deadline":        {settled(Pending, deadline), Verdict{}, time.Minute},
		"pending, unread":                 {settled(Pending, nil), Verdict{Rules: Unread}, time.Minute},
		"waiting without an end":          {settled(Waiting, never), refused, 0},
		"waiting, its life has not begun": {settled(Waiting, nil), refused, 0},
		"waiting, with a deadline":        {settled(Waiting, deadline), refused, time.Minute},
		"waiting for its life to shorten": {settled(Waiting, nil), Verdict{Rules: Refused, Wait: time.Second}, time.Second},
		"waiting, the deadline is first":  {settled(Waiting, deadline), Verdict{Rules: Refused, Wait: time.Hour}, time.Minute},
		"waiting, unread":                 {settled(Waiting, never), Verdict{Rules: Unread}, time.Minute},
		"held":                            {settled(Held, never), shut, MaxWait},
		"held, with a deadline":           {settled(Held, deadline), shut, time.Minute},
		"committed":                       {settled(Committed, never), Verdict{}, MaxWait},
		"committed, with a deadline":      {settled(Committed, deadline), Verdict{}, time.Minute},
		"in conflict since now":           {settled(Conflicted, conflict(0)), Verdict{}, time.Second},
		"in conflict since tomorrow":      {settled(Conflicted, conflict(-day)), Verdict{}, time.Second},
		"in conflict for a second and 1":  {settled(Conflicted, conflict(time.Second+1)), Verdict{}, time.Second + 1},
		"in conflict for 59 s":            {settled(Conflicted, conflict(59*time.Second)), Verdict{}, 59 * time.Second},
		"in conflict for an hour":         {settled(Conflicted, conflict(time.Hour)), Verdict{}, time.Minute},
		"in conflict since nobody knows":  {settled(Conflicted, nil), Verdict{}, time.Minute},
		"in conflict, with a deadline": {
			settled(Conflicted, func(f *Facts) { f.Deadline, f.ConflictSince = expiry.At(noon.Add(time.Second)), noon.Add(-time.Hour) }),
			Verdict{}, time.Second,
		},
		"issued, never expires": {settled(Issued, never), Verdict{}, 0},
		"issued, far deadline":  {settled(Issued, nil), Verdict{}, MaxWait},
		"issued, near deadline": {
			settled(Issued, func(f *Facts) { f.Deadline, f.IssuedAt = expiry.At(soon), noon.Add(-time.Hour) }), Verdict{}, time.Minute,
		},
		"issued, the warning is first": {
			settled(Issued, func(f *Facts) { f.Deadline = expiry.At(noon.Add(5 * time.Minute)) }), Verdict{}, 4 * time.Minute,
		},
		"issued, withdrawal first": {settled(Issued, func(f *Facts) { f.WithdrawAt = soon }), Verdict{}, time.Minute},
		"issued, withdrawn": {
			settled(Issued, func(f *Facts) { f.Deadline, f.WithdrawAt, f.SecretDeleted = expiry.Never(), soon, true }), Verdict{}, 0,
		},
		"to retire": {settled(Issued, func(f *Facts) { f.Rotation.Retiring, f.RetiresAt = true, soon }), allowed, time.Minute},
		"to rotate": {settled(Issued, func(f *Facts) { f.NextRotationAt = soon }), allowed, time.Minute},
		"requested within a minute of the last": {
			settled(Issued, func(f *Facts) { f.Rotation.Requested, f.RotatedAt = true, noon.Add(-time.Second) }), allowed, 59 * time.Second,
		},
		"rotation due after another action": {settled(Issued, func(f *Facts) { f.Rotation.Requested = true }), allowed, time.Millisecond},
		"rotation blocked since now":        {settled(Issued, blocked(0)), allowed, time.Second},
		"rotation blocked for 2 minutes":    {settled(Issued, blocked(2*time.Minute)), allowed, 2 * time.Minute},
		"rotation blocked for a day":        {settled(Issued, blocked(day)), allowed, 10 * time.Minute},
		"rotation begun and blocked":        {settled(Issued, begun), allowed, time.Minute},
		"rotation refused by the rules": {
			settled(Issued, func(f *Facts) { f.Deadline, f.Rotation.Requested = expiry.Never(), true }), refused, 0,
		},
		"rotation due, rules unread": {
			settled(Issued, func(f *Facts) { f.Deadline, f.Rotation.Requested = expiry.Never(), true }), Verdict{Rules: Unread}, time.Minute,
		},
		"suspended besides":        {settled(Issued, func(f *Facts) { f.Suspend = true }), allowed, time.Millisecond},
		"expired":                  {settled(Expired, func(f *Facts) { f.CollectAt = soon }), Verdict{}, time.Minute},
		"expired, nobody can tell": {settled(Expired, func(f *Facts) { f.CollectAt = time.Time{} }), Verdict{}, 0},
		"expired, collection due":  {settled(Expired, func(f *Facts) { f.CollectAt = noon }), Verdict{Clock: Right}, 0},
		"a tombstone":              {settled(Tombstone, nil), Verdict{}, 0},
		"deleted":                  {settled(Deleting, deadline), Verdict{}, 0},
	} {
		if got := Plan(c.facts, c.verdict, noon).Again.Wait(noon); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// An unknown verdict opens nothing, and the key is planned again.
func TestAVerdictOutOfRange(t *testing.T) {
	for _, state := range allStates() {
		for _, verdict := range []Verdict{{Rules: 99, Gate: Open}, {Rules: Allowed, Gate: 99}, {Rules: -1}} {
			verdict.Clock = Right
			step := Plan(sample(t, state), verdict, noon)
			want := Settle
			if state.Unissued() || state == Deleting {
				want = Nothing
			}
			if step.Action != want || state.Unissued() && step.Again.Wait(noon) != MaxWait {
				t.Errorf("%s, %+v: %s, looked at again after %s", state, verdict, step.Action, step.Again.Wait(noon))
			}
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	name := func(name string) {
		if name == "" || seen[name] {
			t.Errorf("%q is empty, or the name of two", name)
		}
		seen[name] = true
	}
	for _, s := range allStates() {
		name(s.String())
	}
	for a := range actions {
		name("to " + Action(a).String())
	}
}
