package lifecycle

import (
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

// When a rotation may begin, in all combinations of a request, a schedule and an overlap that is not over.
func TestRotationAt(t *testing.T) {
	never := time.Time{}
	minute, hour := noon.Add(time.Minute), noon.Add(time.Hour)
	for name, c := range map[string]struct {
		rotation            Rotation
		rotated, next, ends time.Time
		want                time.Time
		due                 bool // want counts only if it is set
	}{
		"nothing":                      {},
		"retiring":                     {rotation: Rotation{Retiring: true}, rotated: noon, ends: hour},
		"requested":                    {rotation: Rotation{Requested: true}, want: never, due: true},
		"requested again":              {rotation: Rotation{Requested: true}, rotated: noon, want: minute, due: true},
		"requested in an overlap":      {rotation: Rotation{Requested: true, Retiring: true}, rotated: noon, ends: hour, want: hour, due: true},
		"requested in a short overlap": {rotation: Rotation{Requested: true, Retiring: true}, rotated: noon, ends: noon.Add(1), want: minute, due: true},
		"requested at once":            {rotation: Rotation{Requested: true, AtOnce: true, Retiring: true}, rotated: noon, ends: hour, want: minute, due: true},
		"scheduled":                    {next: hour, want: hour, due: true},
		"scheduled in an overlap":      {rotation: Rotation{Retiring: true}, next: minute, ends: hour, want: hour, due: true},
		"scheduled after an overlap":   {rotation: Rotation{Retiring: true}, next: hour, ends: minute, want: hour, due: true},
		"scheduled, requested before":  {rotation: Rotation{Requested: true}, rotated: noon, next: hour, want: minute, due: true},
		"scheduled, requested after":   {rotation: Rotation{Requested: true}, rotated: hour, next: minute, want: minute, due: true},
		"begun":                        {rotation: Rotation{Begun: true}, next: hour, want: never, due: true},
		"begun in an overlap":          {rotation: Rotation{Begun: true, Retiring: true}, ends: hour, want: never, due: true},
		"the end of another overlap":   {rotation: Rotation{Requested: true}, ends: hour, want: never, due: true},
	} {
		facts := sample(t, Issued)
		facts.Rotation, facts.RotatedAt, facts.NextRotationAt, facts.RetiresAt = c.rotation, c.rotated, c.next, c.ends
		if at, due := facts.rotationAt(); due != c.due || due && !at.Equal(c.want) {
			t.Errorf("%s: at %s, due: %t; want %s, due: %t", name, at, due, c.want, c.due)
		}
		for _, state := range allStates() {
			facts.Record = sample(t, state).Record
			facts.Rotation = c.rotation
			if got := facts.RotationDue(noon.Add(time.Hour)); got != (c.due && state.Out()) {
				t.Errorf("%s, %s: due at the end: %t", name, state, got)
			}
		}
	}
}

func TestRetiringAcceptedUntil(t *testing.T) {
	for _, state := range allStates() {
		facts := sample(t, state)
		facts.Deadline = expiry.At(tomorrow)
		facts.Rotation.Retiring, facts.RetiresAt = true, noon.Add(time.Hour)
		for at, want := range map[time.Duration]bool{-1: true, 0: false, 1: false} {
			want = want && !facts.AcceptedUntil().Passed(noon)
			if got := !facts.RetiringAcceptedUntil().Passed(noon.Add(time.Hour + at)); got != want {
				t.Errorf("%s, %s from the end of the overlap: accepted %t", state, at, got)
			}
		}
		facts.RetiresAt = tomorrow.Add(time.Hour)
		if !facts.RetiringAcceptedUntil().Passed(tomorrow) {
			t.Errorf("%s: the retiring token is accepted for longer than the key", state)
		}
	}
	facts := sample(t, Issued)
	facts.Deadline = expiry.Never()
	facts.Rotation.Retiring = true
	if !facts.RetiringAcceptedUntil().Passed(noon) {
		t.Error("a retiring token whose end was never set is accepted")
	}
}

// A rotation that has begun is continued before the Secret is withdrawn, unless it is blocked.
func TestWithdrawalWaitsForARotation(t *testing.T) {
	facts := sample(t, Issued)
	facts.WithdrawAt, facts.Rotation.Begun = noon, true
	verdict := Verdict{Rules: Refused, Clock: Right}
	if got := Plan(facts, verdict, noon).Action; got != ResumeRotation {
		t.Errorf("%s, want ResumeRotation", got)
	}
	facts.Rotation.Blocked = true
	if got := Plan(facts, verdict, noon).Action; got != Withdraw {
		t.Errorf("%s, want Withdraw", got)
	}
	facts.SecretDeleted = true
	if got := Plan(facts, verdict, noon).Action; got != ResumeRotation {
		t.Errorf("%s, want ResumeRotation", got)
	}
}

// A rotation begins, or is said to be refused, as soon as what was more important is done.
func TestARotationFollowsAnotherActionAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		verdict Verdict
		next    Action
	}{
		"refused":                {Verdict{Rules: Refused, Clock: Right}, BlockRotation},
		"refused, clock unasked": {Verdict{Rules: Refused}, BlockRotation},
		"allowed":                {Verdict{Rules: Allowed, Clock: Right}, Rotate},
		"allowed, clock unasked": {Verdict{Rules: Allowed}, AskClock},
	} {
		facts := sample(t, Suspended)
		facts.Rotation.Requested, facts.Rotation.RetireRequested = true, true
		done := Plan(facts, c.verdict, noon).Action
		if done != RetireNow {
			t.Errorf("%s: %s, want RetireNow", name, done)
		}
		facts.Rotation.RetireRequested = false
		step := Plan(facts, c.verdict, noon)
		if wait := step.After(done).Wait(noon); step.Action != c.next || wait != time.Millisecond {
			t.Errorf("%s: %s, in %s; want %s at once", name, step.Action, wait, c.next)
		}
	}
	facts := sample(t, Suspended)
	facts.Rotation.Requested, facts.Rotation.Blocked, facts.Rotation.BlockedSince = true, true, noon
	step := Plan(facts, Verdict{Rules: Refused, Clock: Right}, noon)
	if wait := step.After(BlockRotation).Wait(noon); step.Action != BlockRotation || wait == time.Millisecond {
		t.Errorf("%s, in %s; want BlockRotation, but not at once again", step.Action, wait)
	}
}
