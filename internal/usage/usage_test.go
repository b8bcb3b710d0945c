package usage_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/usage"
)

var (
	noon  = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	never = time.Time{}
)

func TestMeter(t *testing.T) {
	meter := usage.NewMeter(noon)
	for offset, want := range map[time.Duration]usage.Second{
		-time.Hour: 1, 0: 1, time.Second - 1: 1, time.Second: 2, time.Minute: 61,
	} {
		if got := meter.Second(noon.Add(offset)); got != want {
			t.Errorf("%s after the origin is second %d, want %d", offset, got, want)
		}
	}
}

func TestMarkOnlyMovesForward(t *testing.T) {
	m := &usage.Mark{}
	if m.Used() != 0 || !m.Recorded().IsZero() {
		t.Errorf("a new mark is used at %d and recorded at %s", m.Used(), m.Recorded())
	}
	for _, step := range []struct{ use, want usage.Second }{{5, 5}, {5, 5}, {3, 5}, {6, 6}} {
		if m.Use(step.use); m.Used() != step.want {
			t.Errorf("after a use at %d, the last one is %d, want %d", step.use, m.Used(), step.want)
		}
	}
	m.Record(noon.Add(time.Millisecond))
	if got := m.Recorded(); !got.Equal(noon) {
		t.Errorf("recorded %s, want %s", got, noon)
	}
	m.Record(never)
	if got := m.Recorded(); !got.IsZero() {
		t.Errorf("recorded %s, want none", got)
	}
}

func TestMarkKeepsTheLatestOfConcurrentUses(t *testing.T) {
	m := &usage.Mark{}
	var users sync.WaitGroup
	for user := range 4 {
		users.Go(func() {
			for i := range 10_000 {
				m.Use(usage.Second(1 + (i*7+user*13)%1000)) //nolint:gosec // small
			}
		})
	}
	users.Wait()
	if m.Used() != 1000 {
		t.Errorf("the last use is %d, want 1000", m.Used())
	}
}

func TestUseDoesNotAllocate(t *testing.T) {
	m, at := &usage.Mark{}, usage.Second(0)
	if allocations := testing.AllocsPerRun(100, func() { at++; m.Use(at) }); allocations != 0 {
		t.Errorf("a use allocates %f times", allocations)
	}
}

func TestDue(t *testing.T) {
	for name, c := range map[string]struct {
		at, recorded time.Time
		want         bool
	}{
		"first":      {noon, never, true},
		"the same":   {noon, noon, false},
		"earlier":    {noon.Add(-2 * time.Hour), noon, false},
		"an hour":    {noon.Add(time.Hour), noon, false},
		"almost due": {noon.Add(time.Hour + time.Second), noon, false},
		"due":        {noon.Add(time.Hour + 2*time.Second), noon, true},
	} {
		if got := (usage.Use{At: c.at, Recorded: c.recorded}).Due(time.Hour); got != c.want {
			t.Errorf("%s: due is %t, want %t", name, got, c.want)
		}
	}
}

func TestRetiringTokensAreDueByTheMinute(t *testing.T) {
	for later, want := range map[time.Duration]bool{61 * time.Second: false, 62 * time.Second: true} {
		if got := (usage.Use{At: noon.Add(later), Recorded: noon, Retiring: true}).Due(time.Hour); got != want {
			t.Errorf("after %s due is %t, want %t", later, got, want)
		}
	}
	if !usage.DueRetiring(noon.Add(time.Second), noon, time.Second) {
		t.Error("a shorter precision does not count for a retiring token")
	}
}

// Whatever a reporter finds due must be due for the operator, although both round times to seconds in their own way. Otherwise the
// reporter would wait for a record that never comes.
func TestWhatIsReportedIsRecorded(t *testing.T) {
	if usage.Due(noon.Add(time.Hour-1), noon, time.Hour) || !usage.Due(noon.Add(time.Hour), noon, time.Hour) {
		t.Error("the operator's precision is not exact")
	}
	for later := time.Hour - 5*time.Second; later < time.Hour+5*time.Second; later += time.Second {
		if !(usage.Use{At: noon.Add(later), Recorded: noon}).Due(time.Hour) {
			continue
		}
		for difference := -2 * time.Second; difference <= 2*time.Second; difference += time.Second {
			if !usage.Due(noon.Add(later+difference), noon, time.Hour) {
				t.Errorf("a use %s later is reported, and not due for an operator that differs by %s", later, difference)
			}
		}
	}
}

func TestLedgerKeepsTheLatestUseOfTheLatestRetiringToken(t *testing.T) {
	l := &usage.Ledger{}
	for _, step := range []struct {
		digest string
		at     time.Time
	}{{"", noon}, {"old", noon}, {"old", noon.Add(-time.Minute)}, {"", noon.Add(time.Hour)}, {"new", noon.Add(-time.Hour)}, {"new", noon.Add(time.Minute)}} {
		l.Add(usage.Waiting{Key: usage.Key{UID: "uid"}, At: step.at, Retiring: step.digest, RetiringAt: step.at})
	}
	got, _ := l.Next()
	if !got.At.Equal(noon.Add(time.Hour)) || got.Retiring != "new" || !got.RetiringAt.Equal(noon.Add(time.Minute)) {
		t.Errorf("got %+v", got)
	}
}

func TestClamp(t *testing.T) {
	issued, now := noon, noon.Add(time.Hour)
	for name, c := range map[string]struct{ at, want time.Time }{
		"between":             {noon.Add(time.Minute), noon.Add(time.Minute)},
		"fraction":            {noon.Add(time.Minute + 900*time.Millisecond), noon.Add(time.Minute)},
		"an hour too late":    {now.Add(time.Hour), now},
		"an hour too early":   {noon.Add(-time.Hour), noon},
		"centuries too early": {noon.AddDate(-300, 0, 0), noon},
	} {
		if got := usage.Clamp(c.at, issued, now); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := usage.Clamp(noon, noon.Add(time.Minute), noon); !got.Equal(noon.Add(time.Minute)) {
		t.Errorf("issued later than now: %s, want the time of issue", got)
	}
}

func use(namespace, uid string, at, recorded time.Time) usage.Use {
	return usage.Use{Token: usage.Token{UID: uid}, Namespace: namespace, At: at, Recorded: recorded}
}

func chosen(limit int, uses ...usage.Use) []string {
	s := usage.NewSelection(limit)
	for _, u := range uses {
		s.Add(u)
	}
	uses = s.Uses()
	uids := make([]string, 0, len(uses))
	for _, u := range uses {
		uids = append(uids, u.UID)
	}
	return uids
}

func TestSelection(t *testing.T) {
	hour := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Hour) }
	for name, c := range map[string]struct {
		limit int
		uses  []usage.Use
		want  []string
	}{
		"nothing": {2, nil, nil},
		"never recorded comes first, then the oldest record": {3, []usage.Use{
			use("a", "recent", hour(9), hour(8)), use("a", "old", hour(9), hour(1)), use("a", "new", hour(9), never),
		}, []string{"new", "old", "recent"}},
		"of two that were never recorded, the earlier use comes first": {2, []usage.Use{
			use("a", "later", hour(2), never), use("a", "earlier", hour(1), never),
		}, []string{"earlier", "later"}},
		"namespaces take turns": {4, []usage.Use{
			use("a", "a1", hour(1), never), use("a", "a2", hour(2), never), use("a", "a3", hour(3), never), use("b", "b1", hour(9), hour(8)),
			use("c", "c1", hour(4), never),
		}, []string{"a1", "c1", "b1", "a2"}},
		"with more namespaces than places, the longest waiting are first": {2, []usage.Use{
			use("c", "c", hour(3), never), use("a", "a", hour(1), never), use("b", "b", hour(2), never),
		}, []string{"a", "b"}},
	} {
		if got := chosen(c.limit, c.uses...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// However many keys of one namespace are in use, those of another are in each report.
func TestSelectionIsFairAndBounded(t *testing.T) {
	s := usage.NewSelection(usage.MaxUses)
	for i := range 9_000 {
		s.Add(use("busy", fmt.Sprintf("busy-%04d", i), noon.Add(time.Duration(i)*time.Second), never))
	}
	for i := range 10 {
		s.Add(use("quiet", fmt.Sprintf("quiet-%d", i), noon.Add(24*time.Hour), never))
	}
	uses := s.Uses()
	quiet := 0
	for _, u := range uses {
		if u.Namespace == "quiet" {
			quiet++
		}
	}
	if len(uses) != usage.MaxUses || quiet != 10 || s.Total() != 9_010 {
		t.Errorf("%d uses of %d, %d of the quiet namespace; want 500 of 9010 and 10", len(uses), s.Total(), quiet)
	}
	if uses[0].UID != "busy-0000" || uses[len(uses)-1].UID != "busy-0489" {
		t.Errorf("the busy namespace has %s to %s, want the 490 earliest", uses[0].UID, uses[len(uses)-1].UID)
	}
}

func TestOutdated(t *testing.T) {
	at := noon
	last := usage.NewReport(at, []usage.Use{
		use("a", "known", at.Add(-time.Minute), never),
		{Token: usage.Token{UID: "retiring"}, Namespace: "a", At: at.Add(-time.Minute), Retiring: true},
	})
	for name, c := range map[string]struct {
		uses  []usage.Use
		after time.Duration
		want  bool
	}{
		"nothing to report":            {nil, time.Hour, false},
		"reported, and not recorded":   {[]usage.Use{use("a", "known", at.Add(-time.Minute), never)}, time.Minute, false},
		"used again, and not recorded": {[]usage.Use{use("a", "known", at.Add(time.Minute), never)}, 2 * time.Minute, false},
		"a new key":                    {[]usage.Use{use("a", "new", at, never)}, time.Second, true},
		"recorded, and used an hour after that": {
			[]usage.Use{use("a", "known", at.Add(time.Hour), at.Add(-time.Minute))}, time.Minute, true,
		},
		"not recorded for ten minutes": {[]usage.Use{use("a", "known", at.Add(-time.Minute), never)}, 10 * time.Minute, true},
		"a token that was reported, and is retiring now": {
			[]usage.Use{{Token: usage.Token{UID: "known"}, At: at.Add(-time.Minute), Retiring: true}}, time.Second, true,
		},
		"a retiring token, not recorded": {
			[]usage.Use{{Token: usage.Token{UID: "retiring"}, At: at, Recorded: at.Add(-2*time.Minute - 2*time.Second), Retiring: true}}, time.Second, false,
		},
		"a retiring token, recorded, and used a minute later": {
			[]usage.Use{{Token: usage.Token{UID: "retiring"}, At: at, Recorded: at.Add(-time.Minute), Retiring: true}}, time.Second, true,
		},
		"another token of the key": {
			[]usage.Use{{Token: usage.Token{UID: "known", Digest: [32]byte{1}}, Namespace: "a", At: at}}, time.Second, true,
		},
	} {
		if got := last.Outdated(c.uses, time.Hour, at.Add(c.after)); got != c.want {
			t.Errorf("%s: outdated is %t, want %t", name, got, c.want)
		}
	}
	if (usage.Report{}).Outdated(nil, time.Hour, noon) {
		t.Error("no report is outdated without uses")
	}
}

func waiting(namespace, name string, at time.Time) usage.Waiting {
	return usage.Waiting{Key: usage.Key{Namespace: namespace, Name: name, UID: "uid-of-" + name}, At: at, Since: noon}
}

func TestLedger(t *testing.T) {
	l := &usage.Ledger{}
	if next, ok := l.Next(); ok {
		t.Errorf("an empty ledger has %v", next)
	}
	for _, name := range []string{"a1", "a2", "a3"} {
		l.Add(waiting("a", name, noon))
	}
	l.Add(waiting("b", "b1", noon))
	l.Add(waiting("a", "a2", noon.Add(time.Minute)))
	l.Add(waiting("a", "a3", noon.Add(-time.Minute)))
	if keys, since := l.Waiting(); keys != 4 || !since.Equal(noon) {
		t.Errorf("%d keys wait since %s, want 4 since %s", keys, since, noon)
	}
	var order []string
	for next, ok := l.Next(); ok; next, ok = l.Next() {
		if order = append(order, next.Name); next.Name == "a1" {
			l.Add(next) // it could not be recorded
		}
		if len(order) > 5 {
			break
		}
		want := noon
		if next.Name == "a2" {
			want = noon.Add(time.Minute)
		}
		if !next.At.Equal(want) {
			t.Errorf("%s was used at %s, want %s", next.Name, next.At, want)
		}
	}
	if want := []string{"a1", "b1", "a2", "a3", "a1", "a1"}; !slices.Equal(order, want) {
		t.Errorf("recorded in the order %v, want %v", order, want)
	}
	l.Next()
	if keys, since := l.Waiting(); keys != 0 || !since.IsZero() {
		t.Errorf("%d keys wait since %s, want none", keys, since)
	}
}
