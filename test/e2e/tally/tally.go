// Package tally counts correct, wrong and missing answers.
package tally

import "net/http"

// Tally counts requests.
type Tally struct {
	// Sent counts all requests. Wrong counts those that were refused although they should have been allowed, or the other way round.
	// Unanswered counts those without a decision: no connection, or a status of 5xx.
	Sent, Wrong, Unanswered int
}

// Add counts a request that should have got the status want, and got the status got or an error.
func (t *Tally) Add(want, got int, err error) {
	t.Sent++
	switch {
	case err != nil, got >= http.StatusInternalServerError:
		t.Unanswered++
	case got != want:
		t.Wrong++
	}
}

// Since returns what was counted since an earlier state of the tally.
func (t Tally) Since(earlier Tally) Tally {
	return Tally{Sent: t.Sent - earlier.Sent, Wrong: t.Wrong - earlier.Wrong, Unanswered: t.Unanswered - earlier.Unanswered}
}
