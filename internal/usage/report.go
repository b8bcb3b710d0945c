package usage

import (
	"cmp"
	"slices"
	"time"
)

const (
	// DefaultPrecision is how old a recorded use may become before a later one is recorded.
	DefaultPrecision = time.Hour

	// RetiringPrecision is the precision for a retiring token, unless the usual one is shorter: its overlap may end within
	// minutes.
	RetiringPrecision = time.Minute

	// rounding is how much a reporter and the operator may differ about the time of a use, because both count in whole seconds.
	rounding = 2 * time.Second

	// MaxUses is the largest number of uses in a report. It is a limit of the schema, too.
	MaxUses = 500

	// repeatAfter is the age at which a report is written again while it has unrecorded uses: it may have been deleted.
	repeatAfter = 10 * time.Minute
)

// Token identifies a token of a key. Reports contain digests, never tokens.
type Token struct {
	UID    string
	Digest [32]byte
}

// Use is the last use of a token. Times are those of the API server's clock, in whole seconds.
type Use struct {
	Token
	// Namespace of the key.
	Namespace string
	// At is when the token was last used.
	At time.Time
	// Recorded is the last use on record, or zero if there is none.
	Recorded time.Time
	// Retiring says that the token is the one before the last rotation.
	Retiring bool
}

// Due reports whether the use must be reported, with the given precision for current tokens.
func (u Use) Due(precision time.Duration) bool { return u.dueAt(u.At, precision) }

// dueAt leaves a margin for rounding. Otherwise the operator could find that a reported use is not due, and the reporter would take it for
// one that waits to be recorded, and not report a later one.
func (u Use) dueAt(at time.Time, precision time.Duration) bool {
	at = at.Add(-rounding)
	if u.Retiring {
		return DueRetiring(at, u.Recorded, precision)
	}
	return Due(at, u.Recorded, precision)
}

// Due reports whether a use at the time at must be recorded: none is on record, or that one is older by the precision.
func Due(at, recorded time.Time, precision time.Duration) bool {
	return recorded.IsZero() || at.Sub(recorded) >= precision
}

// DueRetiring is [Due] for a retiring token.
func DueRetiring(at, recorded time.Time, precision time.Duration) bool {
	return Due(at, recorded, min(precision, RetiringPrecision))
}

// longest compares two uses by how long nothing was recorded for them, longest first.
func longest(a, b Use) int {
	return cmp.Or(a.Recorded.Compare(b.Recorded), a.At.Compare(b.At), cmp.Compare(a.UID, b.UID), slices.Compare(a.Digest[:], b.Digest[:]))
}

// Selection chooses the uses for a report: those that have been unrecorded longest, with the namespaces taking turns. Its
// memory is limited for each namespace, however many uses are added.
type Selection struct {
	limit       int
	total       int
	byNamespace map[string][]Use
}

// NewSelection returns a selection of at most limit uses.
func NewSelection(limit int) *Selection {
	return &Selection{limit: limit, byNamespace: map[string][]Use{}}
}

// Add adds a use that is due.
func (s *Selection) Add(use Use) {
	s.total++
	uses := append(s.byNamespace[use.Namespace], use)
	if len(uses) >= 2*s.limit {
		slices.SortFunc(uses, longest)
		uses = uses[:s.limit]
	}
	s.byNamespace[use.Namespace] = uses
}

// Total returns how many uses were added.
func (s *Selection) Total() int { return s.total }

// Uses returns the chosen uses.
func (s *Selection) Uses() []Use {
	queues := make([][]Use, 0, len(s.byNamespace))
	for _, uses := range s.byNamespace {
		slices.SortFunc(uses, longest)
		queues = append(queues, uses)
	}
	slices.SortFunc(queues, func(a, b []Use) int { return longest(a[0], b[0]) })
	var chosen []Use
	for turn := 0; len(chosen) < s.limit && len(queues) > 0; turn++ {
		queues = slices.DeleteFunc(queues, func(uses []Use) bool { return turn >= len(uses) })
		for _, uses := range queues[:min(len(queues), s.limit-len(chosen))] {
			chosen = append(chosen, uses[turn])
		}
	}
	return chosen
}

// Report is what was last reported.
type Report struct {
	// At is when it was written.
	At   time.Time
	uses map[reported]time.Time
}

// reported identifies a use in a report. A token that is retiring now, and was not when it was reported, must be reported again:
// its uses are recorded in another place.
type reported struct {
	Token
	retiring bool
}

// NewReport returns the report of uses that was written at the time at.
func NewReport(at time.Time, uses []Use) Report {
	r := Report{At: at, uses: make(map[reported]time.Time, len(uses))}
	for _, use := range uses {
		r.uses[reported{use.Token, use.Retiring}] = use.At
	}
	return r
}

// Outdated reports whether a report must be written that has the given uses. It need not be if the last report has all of
// them, with times that are still due to be recorded. A later use of a reported token is nothing new: the recorded time is
// then older than the last use by less than the precision.
func (r Report) Outdated(uses []Use, precision time.Duration, now time.Time) bool {
	if len(uses) == 0 {
		return false
	}
	return now.Sub(r.At) >= repeatAfter || slices.ContainsFunc(uses, func(use Use) bool {
		at, known := r.uses[reported{use.Token, use.Retiring}]
		return !known || !use.dueAt(at, precision)
	})
}
