// Package tally counts answers by whether they were right.
package tally

import "net/http"

// Tally of requests.
type Tally struct {
	// Sent are all of them; Wrong were refused though they were good, or let in though they were not; Unanswered got no verdict: no
	// connection, or a 5xx.
	Sent, Wrong, Unanswered int
}

// Add counts a request that should have been answered with one code, and was with another or not at all.
func (t *Tally) Add(want, got int, err error) {
	t.Sent++
	switch {
	case err != nil, got >= http.StatusInternalServerError:
		t.Unanswered++
	case got != want:
		t.Wrong++
	}
}

// Since is what was counted after an earlier state of the tally.
func (t Tally) Since(earlier Tally) Tally {
	return Tally{Sent: t.Sent - earlier.Sent, Wrong: t.Wrong - earlier.Wrong, Unanswered: t.Unanswered - earlier.Unanswered}
}
