package model

import (
	"slices"
	"time"
)

// useRounding is by how much a recorded time may be off: reporter and operator count in whole seconds, each in its own way.
const useRounding = 3 * time.Second

// judgeUse compares the last use of each key, as it was recorded, with the answers. The time moves only forward, and is one at which the key
// was used. A token that was used before its key was issued, by the clock of an operator that was ahead, is recorded at the issue.
func (w *world) judgeUse() []Violation {
	var found []Violation
	uses := w.uses()
	for uid, k := range w.keys {
		var before time.Time
		for _, now := range k.seen {
			if now.Gone || now.Used.Equal(before) {
				continue
			}
			wrong := func(expected string) {
				found = append(found, Violation{
					Rule: RuleUse, Subject: uid, At: now.At, Who: "the operators", Expected: expected, Got: "lastUsedAt " + face(now.Used),
				})
			}
			switch {
			case now.Used.Before(before):
				wrong("lastUsedAt " + face(before) + " or later")
			case now.Used.Equal(now.Issued):
			case !usedBetween(uses[uid], now.Used.Add(-useRounding-w.reportDelay(now)), now.Used.Add(useRounding)):
				wrong("a time at which the key was used")
			}
			before = now.Used
		}
	}
	return found
}

// uses returns the answers that may have been a use, in the order of their beginnings, by the UID of the key. Without an answer, a verifier
// may have accepted the token anyway.
func (w *world) uses() map[string][]Answer {
	of := map[string]string{} // the UID of the key of each digest
	for uid, k := range w.keys {
		for _, seen := range k.seen {
			for _, digest := range seen.accepted() {
				of[digest] = uid
			}
		}
	}
	uses := map[string][]Answer{}
	for _, a := range w.answers { // sorted by their beginnings
		if uid, ok := of[a.Digest]; ok && (a.Result == Allowed || a.Result == Unreachable) {
			uses[uid] = append(uses[uid], a)
		}
	}
	return uses
}

// reportDelay returns by how much the recorded use of a key may be too late. A report says how long ago each use was, and the API server
// says when it got the report. If either side stands still in between, all uses look later.
func (w *world) reportDelay(seen Key) time.Duration {
	var longest time.Duration
	for f := range w.overlapping(seen.Used.Add(-longestDelay), seen.At) {
		if f.concerns(reporters) {
			longest = max(longest, orNever(f.To).Sub(f.From))
		}
	}
	return min(longest, longestDelay)
}

// longestDelay is longer than any fault.
const longestDelay = time.Minute

// reporters stands for all verifiers.
const reporters = "verifier"

// usedBetween reports whether an answer and an interval overlap.
func usedBetween(answers []Answer, from, to time.Time) bool {
	after, _ := slices.BinarySearchFunc(answers, to, func(a Answer, t time.Time) int { return a.Start.Compare(t) })
	return slices.ContainsFunc(answers[:after], func(a Answer) bool { return !a.End.Before(from) })
}
