package lifecycle

import (
	"slices"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

// Actions by what they do to a key, stated again: the table must not vouch for itself.
var (
	asks    = []Action{AskRules, AskGate, AskClock}
	mints   = []Action{Issue, Try, Resume}
	rotates = []Action{Rotate, ResumeRotation}
	deletes = []Action{TakeBack, Withdraw, Expire, Collect, Retire}
	tells   = []Action{TellUnread, TellSkew, Settle, Hold, Refuse, Suspend, Lift, BlockRotation, RetireNow}
)

// planned is a plan with all that it was made of.
type planned struct {
	facts   Facts
	verdict Verdict
	now     time.Time
	step    Step
}

func (p *planned) asks() bool    { return slices.Contains(asks, p.step.Action) }
func (p *planned) mints() bool   { return slices.Contains(mints, p.step.Action) }
func (p *planned) rotates() bool { return slices.Contains(rotates, p.step.Action) }
func (p *planned) deletes() bool { return slices.Contains(deletes, p.step.Action) }
func (p *planned) tells() bool   { return slices.Contains(tells, p.step.Action) }

func (p *planned) does(actions ...Action) bool { return slices.Contains(actions, p.step.Action) }

// dead tells whether the deadline has passed.
func (p *planned) dead() bool { return p.facts.Life <= 0 && p.facts.Deadline.Passed(p.now) }

func (p *planned) come(moment time.Time) bool { return !moment.IsZero() && !p.now.Before(moment) }

// overlaps tells whether there is a retiring token whose overlap lasts. An end that was never set has passed, as a deadline has.
func (p *planned) overlaps() bool {
	return p.facts.Rotation.Retiring && p.now.Before(p.facts.RetiresAt)
}

// invariants hold for every plan.
var invariants = []struct {
	what  string
	holds func(*planned) bool
}{
	{"a key that is being deleted is left alone", func(p *planned) bool {
		return !p.facts.Deleting || p.does(Nothing) && p.step.Again == Look{}
	}},
	{"an expired key is never issued, refused or expired again", func(p *planned) bool {
		return p.facts.Told != ToldExpired || p.does(Nothing, Settle, Collect, AskClock, TellSkew)
	}},
	{"an issued key is never issued again, or refused", func(p *planned) bool {
		return !p.facts.Issued || !p.mints() && !p.does(Refuse, TakeBack)
	}},
	{"a key is told that it is suspended, or is not, only if it is out and that is so", func(p *planned) bool {
		return !p.does(Suspend, Lift) || p.facts.Issued && !p.dead() && p.facts.Suspend == p.does(Suspend)
	}},
	{"a token is minted only for a living key that the rules allow", func(p *planned) bool {
		return !p.mints() || p.verdict.Rules == Allowed && !p.dead()
	}},
	{"a key is rotated only if it is issued and lives, and a rotation was begun, requested or scheduled", func(p *planned) bool {
		begun := p.facts.Rotation.Begun || p.facts.Rotation.Requested || p.come(p.facts.NextRotationAt)
		return !p.rotates() || p.facts.Issued && !p.dead() && begun
	}},
	{"a rotation begins only if the rules allow it", func(p *planned) bool {
		return !p.does(Rotate) || p.verdict.Rules == Allowed && !p.facts.Rotation.Begun
	}},
	{"a rotation begins in an overlap only if it ends both tokens at once", func(p *planned) bool {
		return !p.does(Rotate) || !p.overlaps() || p.facts.Rotation.Requested && p.facts.Rotation.AtOnce
	}},
	{"a rotation is told to be refused only if it is", func(p *planned) bool {
		return !p.does(BlockRotation) || p.verdict.Rules == Refused && p.facts.RotationDue(p.now)
	}},
	{"a token retires only in its time or on request", func(p *planned) bool {
		return (!p.does(Retire) || p.facts.Rotation.Retiring && !p.overlaps()) && (!p.does(RetireNow) || p.facts.Rotation.RetireRequested)
	}},
	{"a token is minted only past an open gate", func(p *planned) bool {
		return !p.mints() || slices.Contains([]Gate{Open, AskFirst, Turn}, p.verdict.Gate)
	}},
	{"where Secrets were refused a dry run comes first", func(p *planned) bool {
		return !p.does(Issue) || p.verdict.Gate == Open && p.step.State != Held
	}},
	{"what writes a time or deletes needs a right clock", func(p *planned) bool {
		return !p.mints() && !p.rotates() && !p.deletes() || p.step.NeedsClock && p.verdict.Clock == Right
	}},
	{"a clock is told to be wrong only if it is", func(p *planned) bool {
		return !p.does(TellSkew) || p.verdict.Clock == Wrong
	}},
	{"a key is expired only once its deadline has passed", func(p *planned) bool {
		return !p.does(Expire) || p.dead()
	}},
	{"a dead key is expired, whatever the rules and the gate say", func(p *planned) bool {
		return !p.dead() || !p.step.State.Alive() || p.does(Expire, AskClock, TellSkew)
	}},
	{"a Secret is withdrawn only from an issued key, in its time", func(p *planned) bool {
		return !p.does(Withdraw) || p.facts.Issued && !p.facts.SecretDeleted && p.come(p.facts.WithdrawAt)
	}},
	{"a key is collected only if it expired, is not kept, and its time has come", func(p *planned) bool {
		return !p.does(Collect) || p.facts.Told == ToldExpired && p.facts.KeptBy == "" && p.come(p.facts.CollectAt)
	}},
	{"a token is taken back only if the rules refuse it, and there may be one", func(p *planned) bool {
		return !p.does(TakeBack) || p.verdict.Rules == Refused && (p.facts.Committed || p.facts.SecretNamed)
	}},
	{"a key that is refused has no token left", func(p *planned) bool {
		return !p.does(Refuse) || p.verdict.Rules == Refused && !p.facts.Committed && !p.facts.SecretNamed
	}},
	{"a question is asked only if it is open", func(p *planned) bool {
		return (!p.does(AskRules) || p.verdict.Rules == RulesUnasked) && (!p.does(AskGate) || p.verdict.Gate == GateUnasked) &&
			(!p.does(AskClock) || p.verdict.Clock == ClockUnasked)
	}},
	{"every action is of a kind that these know", func(p *planned) bool {
		return p.asks() || p.mints() || p.rotates() || p.deletes() || p.tells() || p.does(Nothing)
	}},
	{"a look is never in the past", func(p *planned) bool {
		look := p.step.Again
		return (look.moment.IsZero() || look.moment.After(p.now)) && look.delay >= 0
	}},
	{"a wait is short enough, and none only where there is no look", func(p *planned) bool {
		wait := p.step.Again.Wait(p.now)
		return wait >= 0 && wait <= MaxWait && (wait == 0) == (p.step.Again == Look{})
	}},
	{"nobody waits without an end while the rules or the clock may change", func(p *planned) bool {
		waits := p.does(TellSkew) || p.step.State.Unissued() && (p.verdict.Rules == Unread || p.verdict.Rules == Refused && p.verdict.Wait > 0)
		return !waits || p.dead() || p.step.Again.Wait(p.now) > 0
	}},
	{"where time alone changes something there is a look in time", inTime},
}

// inTime looks ahead from a key that stays as it is: once a moment has come at which the plan is another, somebody must have looked.
func inTime(p *planned) bool {
	if p.asks() || p.mints() || p.rotates() || p.deletes() || p.does(TellSkew) {
		return true // the key is not as it will be, or nothing is decided
	}
	moments := []time.Time{p.facts.WithdrawAt, p.facts.CollectAt, p.facts.RetiresAt, p.facts.NextRotationAt}
	if at, ok := p.facts.RequestedRotationAt(); ok {
		moments = append(moments, at)
	}
	if deadline, ok := p.facts.Deadline.Time(); ok {
		moments = append(moments, deadline)
	}
	if warning, ok := p.facts.Deadline.WarnFrom(p.facts.IssuedAt); ok {
		moments = append(moments, warning)
	}
	wait := p.step.Again.Wait(p.now)
	for _, moment := range moments {
		if !moment.After(p.now) || wait != 0 && wait <= max(moment.Sub(p.now), time.Millisecond) {
			continue // it is past, or somebody looks before it
		}
		if Plan(p.facts, p.verdict, moment).Action != p.step.Action || p.facts.Expiring(moment) != p.facts.Expiring(p.now) {
			return false
		}
	}
	return true
}

// check holds a plan against all invariants.
func check(t *testing.T, facts Facts, verdict Verdict, now time.Time) {
	t.Helper()
	p := &planned{facts, verdict, now, Plan(facts, verdict, now)}
	for _, invariant := range invariants {
		if !invariant.holds(p) {
			t.Fatalf("it does not hold that %s\nfacts   %+v\nverdict %+v\nat      %s\nplan    %s in %s, %+v",
				invariant.what, facts, verdict, now, p.step.Action, p.step.State, p.step)
		}
	}
}

// All combinations of all facts, those that contradict themselves among them, with all verdicts.
func TestInvariants(t *testing.T) {
	past, future := noon.Add(-time.Hour), noon.Add(time.Hour)
	var all []Facts
	for told := ToldNothing; told <= ToldExpired; told++ {
		for bits := range 1 << 8 {
			bit := func(n int) bool { return bits&(1<<n) != 0 }
			record := Record{
				Told: told, Deleting: bit(0), Committed: bit(1), Issued: bit(2), SecretNamed: bit(3), SecretDeleted: bit(4), ClockSkewed: bit(5), Suspend: bit(7),
			}
			if record.Issued {
				record.IssuedAt = past
			}
			if bit(6) {
				record.KeptBy = "Flux"
			}
			for _, end := range []Facts{
				{}, // never set
				{Deadline: expiry.Never()}, {Deadline: expiry.At(past)}, {Deadline: expiry.At(noon)}, {Deadline: expiry.At(future)}, {Life: time.Hour},
			} {
				for _, moment := range []time.Time{{}, past, future} {
					all = append(all, Facts{Record: record, Deadline: end.Deadline, Life: end.Life, WithdrawAt: moment, CollectAt: moment})
				}
			}
		}
	}
	all = append(all, rotating(past, future)...)
	used := make([]bool, len(rows))
	for _, facts := range all {
		for rules := RulesUnasked; rules <= Allowed; rules++ {
			for gate := GateUnasked; gate <= Shut; gate++ {
				for clock := ClockUnasked; clock <= Wrong; clock++ {
					verdict := Verdict{Rules: rules, Gate: gate, Clock: clock}
					check(t, facts, verdict, noon)
					i := slices.IndexFunc(rows, func(r row) bool {
						return r.matches(facts.Record, facts.due(verdict, noon), verdict)
					})
					if i < 0 {
						t.Fatalf("no row for %+v, %+v", facts, verdict)
					}
					used[i] = true
					if rules == Refused {
						verdict.Wait = time.Minute
						check(t, facts, verdict, noon)
					}
				}
			}
		}
	}
	for i, ok := range used {
		if !ok {
			t.Errorf("no key ever comes to the row %d: %q", i, rows[i].why)
		}
	}
}

// rotating are facts of keys with all combinations of what is written about rotations.
func rotating(past, future time.Time) []Facts {
	all := make([]Facts, 0, 27<<8)
	for bits := range 1 << 8 {
		bit := func(n int) bool { return bits&(1<<n) != 0 }
		record := Record{Told: ToldIssued, Committed: true, Issued: bit(0), IssuedAt: past, SecretNamed: true, SecretDeleted: bit(1)}
		record.Rotation = Rotation{Begun: bit(2), Retiring: bit(3), Requested: bit(4), AtOnce: bit(5), RetireRequested: bit(6), Blocked: bit(7), BlockedSince: past}
		for _, deadline := range []expiry.Deadline{expiry.Never(), expiry.At(past), expiry.At(future)} {
			for _, next := range []time.Time{{}, past, future} {
				for _, end := range []time.Time{{}, past, future} {
					all = append(all, Facts{Record: record, Deadline: deadline, WithdrawAt: past, NextRotationAt: next, RetiresAt: end, RotatedAt: past})
				}
			}
		}
	}
	return all
}

// For every answer, a plan comes to an end after three questions.
func TestQuestionsEnd(t *testing.T) {
	for _, state := range allStates() {
		for _, skewed := range []bool{false, true} {
			for rules := Unread; rules <= Allowed; rules++ {
				for gate := Open; gate <= Shut; gate++ {
					for clock := Right; clock <= Wrong; clock++ {
						facts, verdict := sample(t, state), Verdict{}
						facts.ClockSkewed = skewed
						asked := 0
						for ; asked <= 3; asked++ {
							p := planned{step: Plan(facts, verdict, noon)}
							if !p.asks() {
								break
							}
							switch p.step.Action {
							case AskRules:
								verdict.Rules = rules
							case AskGate:
								verdict.Gate = gate
							default:
								verdict.Clock = clock
							}
						}
						if asked > 3 {
							t.Errorf("%s: still asking", state)
						}
					}
				}
			}
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add(uint32(0), int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), byte(0), byte(0), byte(0), int64(0))
	f.Add(uint32(0x7ff), int64(1), int64(1), int64(-1), int64(1), int64(1), int64(1), int64(1), byte(3), byte(1), byte(1), int64(1))
	f.Add(uint32(0x3f5087), int64(1), int64(1), int64(-1), int64(1), int64(1), int64(-1), int64(1), byte(3), byte(1), byte(1), int64(1))
	f.Add(uint32(0x2508e), int64(1), int64(1), int64(-1), int64(1), int64(1), int64(1), int64(1), byte(3), byte(1), byte(1), int64(1)) // retiring, without an end
	f.Fuzz(func(t *testing.T, bits uint32, deadline, life, issued, withdraw, collect, next, retires int64, rules, gate, clock byte, wait int64) {
		bit := func(n int) bool { return bits&(1<<n) != 0 }
		at := func(offset int64) time.Time { return noon.Add(time.Duration(offset)) }
		facts := Facts{Record: Record{
			Told: Told(bits>>12&0xf) % (ToldExpired + 1), Deleting: bit(0), Committed: bit(1), Issued: bit(2), IssuedAt: at(issued), SecretNamed: bit(3),
			SecretDeleted: bit(4), ClockSkewed: bit(5), Suspend: bit(10), ConflictSince: at(issued),
			Rotation: Rotation{
				Begun: bit(16), Retiring: bit(17), Requested: bit(18), AtOnce: bit(19), RetireRequested: bit(20), Blocked: bit(21), BlockedSince: at(issued),
			},
		}}
		if bit(11) {
			facts.NextRotationAt, facts.RetiresAt, facts.RotatedAt = at(next), at(retires), at(issued)
		}
		if bit(6) {
			facts.KeptBy = "Flux"
		}
		switch {
		case bit(7):
			facts.Deadline = expiry.Never()
		case bit(8):
			facts.Life = time.Duration(life)
		default:
			facts.Deadline = expiry.At(at(deadline))
		}
		if bit(9) {
			facts.WithdrawAt, facts.CollectAt = at(withdraw), at(collect)
		}
		check(t, facts, Verdict{
			Rules: Rules(rules) % (Allowed + 1), Gate: Gate(gate) % (Shut + 1), Clock: Clock(clock) % (Wrong + 1), Wait: time.Duration(wait),
		}, noon)
	})
}
