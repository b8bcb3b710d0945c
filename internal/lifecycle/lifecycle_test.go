package lifecycle

import (
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

const day = 24 * time.Hour

// What is decided is decided at noon, unless a case says otherwise.
var (
	noon     = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	tomorrow = noon.Add(day)
)

// allStates are all that there are.
func allStates() []State {
	all := make([]State, 0, len(states))
	for s := range states {
		all = append(all, State(s))
	}
	return all
}

// sample are the facts of a key in a state, and nothing is due at noon.
func sample(t *testing.T, state State) Facts {
	t.Helper()
	committed := Record{Told: ToldIssuing, Committed: true, SecretNamed: true}
	of := func(r Record, told Told) Record {
		r.Told = told
		return r
	}
	out := of(committed, ToldIssued)
	out.Issued, out.IssuedAt = true, noon
	suspended := of(out, ToldSuspended)
	suspended.Suspend = true
	kept := of(out, ToldExpired)
	kept.KeptBy = "Flux"
	deleted := out
	deleted.Deleting = true
	facts, ok := map[State]Facts{
		Pending:    {Life: day},
		Waiting:    {Record: Record{Told: ToldRules}, Life: day},
		Held:       {Record: Record{Told: ToldDelivery}, Life: day},
		Committed:  {Record: committed, Deadline: expiry.At(tomorrow)},
		Conflicted: {Record: of(committed, ToldConflict), Deadline: expiry.At(tomorrow)},
		Issued:     {Record: out, Deadline: expiry.At(tomorrow)},
		Suspended:  {Record: suspended, Deadline: expiry.At(tomorrow)},
		Expired:    {Record: of(out, ToldExpired), CollectAt: tomorrow},
		Tombstone:  {Record: kept},
		Deleting:   {Record: deleted},
	}[state]
	if !ok {
		t.Fatalf("no sample of a key that is %s", state)
	}
	return facts
}

func TestState(t *testing.T) {
	for _, want := range allStates() {
		if got := sample(t, want).State(); got != want {
			t.Errorf("the sample of %s is %s", want, got)
		}
	}
}

// Where a record contradicts itself, what is permanent counts, and nothing is opened by it.
func TestStateOfARecordThatContradictsItself(t *testing.T) {
	for name, c := range map[string]struct {
		record Record
		want   State
	}{
		"deleted, whatever else":            {Record{Deleting: true, Told: ToldExpired, Issued: true, Committed: true, KeptBy: "Flux"}, Deleting},
		"expired, and committed again":      {Record{Told: ToldExpired, Committed: true}, Expired},
		"expired, and never issued":         {Record{Told: ToldExpired}, Expired},
		"issued, and told that it waits":    {Record{Told: ToldRules, Issued: true, Committed: true}, Issued},
		"issued, and told that it is held":  {Record{Told: ToldDelivery, Issued: true}, Issued},
		"issued, and told of a conflict":    {Record{Told: ToldConflict, Issued: true, ConflictSince: noon}, Issued},
		"suspended, and never issued":       {Record{Told: ToldSuspended, Suspend: true, Committed: true}, Committed},
		"issued, and told nothing":          {Record{Issued: true}, Issued},
		"issued, without a digest":          {Record{Told: ToldIssued, Issued: true}, Issued},
		"committed, and told that it waits": {Record{Told: ToldRules, Committed: true}, Committed},
		"committed, and told it is held":    {Record{Told: ToldDelivery, Committed: true}, Committed},
		"committed, and told nothing":       {Record{Committed: true}, Committed},
		"committed, and told it is out":     {Record{Told: ToldIssued, Committed: true}, Committed},
		"told it is out, without anything":  {Record{Told: ToldIssued}, Pending},
		"a conflict, without a digest":      {Record{Told: ToldConflict}, Conflicted},
		"kept, and alive":                   {Record{KeptBy: "Flux"}, Pending},
	} {
		if got := c.record.State(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestWhatStatesHaveInCommon(t *testing.T) {
	type properties struct {
		alive, unissued, out, awaitsRules bool
		urgency                           Urgency
	}
	want := map[State]properties{
		Pending:    {alive: true, unissued: true, awaitsRules: true},
		Waiting:    {alive: true, unissued: true, awaitsRules: true, urgency: AfterOthers},
		Held:       {alive: true, unissued: true, urgency: AfterOthers},
		Committed:  {alive: true, unissued: true},
		Conflicted: {alive: true, unissued: true, urgency: AfterOthers},
		Issued:     {alive: true, out: true, urgency: Prompt},
		Suspended:  {alive: true, out: true, urgency: Prompt},
		Expired:    {urgency: Prompt},
		Tombstone:  {urgency: Prompt},
		Deleting:   {},
	}
	for _, s := range allStates() {
		if got := (properties{s.Alive(), s.Unissued(), s.Out(), s.AwaitsRules(), s.Urgency()}); got != want[s] {
			t.Errorf("%s: %+v, want %+v", s, got, want[s])
		}
	}
}

func TestSecretLeft(t *testing.T) {
	for name, c := range map[string]struct {
		record Record
		want   bool
	}{
		"never had one":                {Record{}, false},
		"committed":                    {Record{Committed: true, SecretNamed: true}, true},
		"committed, without its name":  {Record{Committed: true}, true},
		"withdrawn":                    {Record{Committed: true, SecretNamed: true, SecretDeleted: true}, false},
		"taken back halfway":           {Record{SecretNamed: true}, true},
		"taken back, and deleted once": {Record{SecretNamed: true, SecretDeleted: true}, true},
	} {
		if got := c.record.SecretLeft(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestAcceptedUntil(t *testing.T) {
	for _, state := range allStates() {
		facts := sample(t, state)
		facts.Deadline = expiry.Never()
		accepted := state == Committed || state == Conflicted || state == Issued || state == Suspended // its deadline goes on
		if got := !facts.AcceptedUntil().Passed(noon); got != accepted {
			t.Errorf("%s: accepted %t", state, got)
		}
		if facts.Findable() != (accepted || state == Expired || state == Tombstone) {
			t.Errorf("%s: findable %t", state, facts.Findable())
		}
	}
	facts := sample(t, Issued)
	for at, want := range map[time.Duration]bool{-1: true, 0: false, 1: false} {
		if got := !facts.AcceptedUntil().Passed(tomorrow.Add(at)); got != want {
			t.Errorf("%s from the deadline: accepted %t", at, got)
		}
	}
	facts.Deadline = expiry.Deadline{}
	if !facts.AcceptedUntil().Passed(noon) {
		t.Error("accepted with a deadline that was never set")
	}
	facts.Deadline, facts.Life = expiry.Never(), day
	if !facts.AcceptedUntil().Passed(noon) {
		t.Error("accepted with a digest, and a life that has not begun")
	}
}

// A key is expiring in the last fifth of its life, and at no moment before it is out or after it has expired.
func TestExpiring(t *testing.T) {
	lifeOf10h := func(state State) Facts {
		facts := sample(t, state)
		facts.Deadline, facts.IssuedAt = expiry.At(noon.Add(10*time.Hour)), noon
		return facts
	}
	warning := noon.Add(8 * time.Hour)
	for at, want := range map[time.Duration]bool{-1: false, 0: true, 1: true} {
		if got := lifeOf10h(Issued).Expiring(warning.Add(at)); got != want {
			t.Errorf("%s from the warning: expiring %t", at, got)
		}
	}
	for _, state := range allStates() {
		if got := lifeOf10h(state).Expiring(warning); got != (state == Issued || state == Suspended) {
			t.Errorf("%s: expiring %t", state, got)
		}
	}
	never := lifeOf10h(Issued)
	never.Deadline = expiry.Never()
	if never.Expiring(noon.Add(3650 * day)) {
		t.Error("a key that never expires is expiring")
	}
}

func TestDeadlineAt(t *testing.T) {
	facts := Facts{Life: time.Hour}
	if at, ok := facts.DeadlineAt(noon.Add(time.Millisecond)).Time(); !ok || !at.Equal(noon.Add(time.Hour)) {
		t.Errorf("of a life that would begin now: %v", at)
	}
	facts = Facts{Deadline: expiry.At(tomorrow)}
	if at, ok := facts.DeadlineAt(noon).Time(); !ok || !at.Equal(tomorrow) {
		t.Errorf("of one that has begun: %v", at)
	}
	if !(Facts{}).DeadlineAt(noon).Passed(noon) {
		t.Error("a deadline that was never set has not passed")
	}
}

func TestClockOff(t *testing.T) {
	for skew, want := range map[time.Duration]Clock{
		0: Right, Tolerance - 1: Right, Tolerance: Right, Tolerance + 1: Wrong,
		-Tolerance + 1: Right, -Tolerance: Right, -Tolerance - 1: Wrong, -1 << 63: Wrong, 1<<63 - 1: Wrong,
	} {
		if got := ClockOff(skew); got != want {
			t.Errorf("%s: %d, want %d", skew, got, want)
		}
	}
}

func TestJumped(t *testing.T) {
	for moved, want := range map[time.Duration]bool{
		0: false, time.Minute: false, time.Minute + 1: true, -time.Minute: false, -time.Minute - 1: true, 24 * time.Hour: true,
	} {
		if got := Jumped(noon, noon.Add(moved)); got != want {
			t.Errorf("moved by %s: %t, want %t", moved, got, want)
		}
	}
}

func TestWait(t *testing.T) {
	for name, c := range map[string]struct {
		look Look
		want time.Duration
	}{
		"none":                       {Look{}, 0},
		"a moment":                   {Look{moment: noon.Add(time.Minute)}, time.Minute},
		"a moment that is near":      {Look{moment: noon.Add(1)}, time.Millisecond},
		"a moment that has come":     {Look{moment: noon}, time.Millisecond},
		"a moment that is far":       {Look{moment: tomorrow}, MaxWait},
		"a moment just within":       {Look{moment: noon.Add(MaxWait - 1)}, MaxWait - 1},
		"a delay":                    {Look{delay: time.Second}, time.Second},
		"a delay before a moment":    {Look{moment: noon.Add(time.Minute), delay: time.Second}, time.Second},
		"a moment before the delay":  {Look{moment: noon.Add(time.Second), delay: time.Minute}, time.Second},
		"a moment just before delay": {Look{moment: noon.Add(time.Minute - 1), delay: time.Minute}, time.Minute - 1},
	} {
		if got := c.look.Wait(noon); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestLeadsToSuspendedAndBack(t *testing.T) {
	if !Leads(Issued, Suspended) || !Leads(Suspended, Issued) {
		t.Error("a key can't be suspended, or not be resumed")
	}
}

func TestLeads(t *testing.T) {
	for _, from := range allStates() {
		if Leads(from, from) != (from != Deleting) {
			t.Errorf("%s to itself: %t", from, Leads(from, from))
		}
		if from != Deleting && Leads(Deleting, from) || from != Deleting && Leads(from, Deleting) {
			t.Errorf("between %s and Deleting: nothing that is done leads there", from)
		}
		if (from == Expired || from == Tombstone) && Leads(from, Issued) {
			t.Errorf("back to life from %s", from)
		}
		if from.Alive() && !Leads(from, Expired) {
			t.Errorf("%s does not end", from)
		}
		if from.Unissued() && (Leads(Issued, from) || Leads(Suspended, from)) {
			t.Errorf("from Issued or Suspended back to %s", from)
		}
	}
	if Leads(Pending, Suspended) || Leads(Pending, Issued) || !Leads(Pending, Committed) || !Leads(Committed, Issued) {
		t.Error("a token is confirmed that was never committed")
	}
}
