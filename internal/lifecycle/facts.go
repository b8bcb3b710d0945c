package lifecycle

import (
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

// Facts are all that is known of a key: its record, and the moments of its life. Zero moments are such that nothing is opened or deleted
// by mistake: a deadline that was never set has passed, and a collection that was never set does not come.
type Facts struct {
	Record
	// Deadline is the moment from which the key is dead. It has no meaning where Life is set.
	Deadline expiry.Deadline
	// Life, if it is more than 0, is the length of a life that has not begun: it counts from the moment at which a token is committed.
	Life time.Duration
	// WithdrawAt is when the Secret of an issued key is deleted; zero for one that stays as long as the key.
	WithdrawAt time.Time
	// CollectAt is when an expired key is deleted; zero if nobody can tell.
	CollectAt time.Time
}

// DeadlineAt is the deadline that the key has at a moment: its own, or, if its life has not begun, what it would be if it began now.
func (f Facts) DeadlineAt(now time.Time) expiry.Deadline {
	if f.Life > 0 {
		return expiry.At(now.Add(f.Life))
	}
	return f.Deadline
}

// AcceptedUntil is the deadline by which a verifier judges the key's token. It has passed for a key that is marked as expired, whatever a
// clock says, and for one that has no digest. A suspended key is refused besides, and its deadline goes on.
func (f Facts) AcceptedUntil() expiry.Deadline {
	if !f.State().Alive() || !f.Findable() || f.Life > 0 {
		return expiry.Deadline{}
	}
	return f.Deadline
}

// Expiring tells whether the key is in the last part of its life, of which its user is warned.
func (f Facts) Expiring(now time.Time) bool {
	warnFrom, ok := f.at(AtWarning, Verdict{}, now)
	return ok && f.State().Out() && !now.Before(warnFrom)
}

// at is when a moment of the key's life comes; false if it does not come by itself.
func (f Facts) at(moment Moment, verdict Verdict, now time.Time) (time.Time, bool) {
	switch moment {
	case AtDeadline:
		if f.Life > 0 {
			return time.Time{}, false
		}
		return f.Deadline.Time()
	case AtWithdrawal:
		return f.WithdrawAt, !f.WithdrawAt.IsZero() && !f.SecretDeleted
	case AtCollection:
		return f.CollectAt, !f.CollectAt.IsZero()
	case AtWarning:
		return f.DeadlineAt(now).WarnFrom(f.IssuedAt)
	case AtShortLife:
		return now.Add(verdict.Wait), verdict.Wait > 0
	default:
		return time.Time{}, false
	}
}

// due is the weightiest of the moments that have come in the key's state.
func (f Facts) due(verdict Verdict, now time.Time) Moment {
	for _, moment := range states[f.State()].moments {
		if at, ok := f.at(moment, verdict, now); ok && !now.Before(at) {
			return moment
		}
	}
	return NoMoment
}

const (
	// MaxWait is the longest that a look at a key waits: a timer that was set by a wrong clock must not be trusted for long. A look that
	// finds nothing due costs no request.
	MaxWait = 10 * time.Minute

	// StaleDelay is until the next look at a key that somebody changed between a look and what was to be done: a cache may not have seen
	// it yet.
	StaleDelay = 250 * time.Millisecond

	// skewDelay is between looks while nothing may be decided for the clock's sake.
	skewDelay = time.Minute

	// unreadDelay is between looks while keys can't be judged. The end of that is told besides.
	unreadDelay = time.Minute

	// Nobody tells when another's Secret has gone, since Secrets are not watched. The wait grows with the conflict's age.
	minConflictDelay = time.Second
	maxConflictDelay = time.Minute
)

// Look says when a key must be looked at again. The zero value says that nothing changes by the passing of time alone.
type Look struct {
	moment time.Time
	delay  time.Duration
}

// Wait is how long from now until the look, at least a millisecond and at most [MaxWait]; 0 if there is none.
func (l Look) Wait(now time.Time) time.Duration {
	wait := MaxWait
	switch {
	case l == Look{}:
		return 0
	case l.delay > 0:
		wait = min(wait, l.delay)
	}
	if !l.moment.IsZero() {
		wait = min(wait, l.moment.Sub(now))
	}
	return max(wait, time.Millisecond)
}

// again is when to look at a key that is as these facts say.
func (f Facts) again(action Action, verdict Verdict, now time.Time) Look {
	if action == TellSkew {
		return Look{delay: skewDelay}
	}
	state := f.State()
	var look Look
	for _, moment := range states[state].moments {
		at, ok := f.at(moment, verdict, now)
		if ok && at.After(now) && (look.moment.IsZero() || at.Before(look.moment)) {
			look.moment = at
		}
	}
	switch {
	case state.Unissued() && verdict.Rules == Unread:
		look.delay = unreadDelay
	case state == Conflicted:
		look.delay = min(max(now.Sub(f.ConflictSince), minConflictDelay), maxConflictDelay)
	case states[state].polled:
		look.delay = MaxWait
	}
	return look
}
