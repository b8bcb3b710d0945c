package lifecycle

import (
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/rotation"
)

// Facts are everything that is known about a key: its [Record] and the times of its life. Zero times are safe: a deadline
// or the end of an overlap that was never set has passed, and a collection time that was never set does not come.
type Facts struct {
	Record
	// Deadline is the time from which the key has expired. It is not used if Life is set.
	Deadline expiry.Deadline
	// Life, if more than 0, is the lifetime of a key without a fixed deadline. It counts from the commit of a token.
	Life time.Duration
	// WithdrawAt is when the Secret of an issued key is deleted; zero if the Secret stays as long as the key is valid.
	WithdrawAt time.Time
	// RotatedAt is when the last rotation was confirmed; zero if there was none.
	RotatedAt time.Time
	// NextRotationAt is when the next rotation by schedule is due; zero if there is none.
	NextRotationAt time.Time
	// RetiresAt is when the retiring token is no longer accepted. It counts only if there is such a token.
	RetiresAt time.Time
	// CollectAt is when an expired key is deleted; zero if that is unknown or the key is kept.
	CollectAt time.Time
}

// DeadlineAt returns the deadline of the key. If the deadline is not fixed yet, it is the one that a commit at now would
// fix.
func (f Facts) DeadlineAt(now time.Time) expiry.Deadline {
	if f.Life > 0 {
		return expiry.At(now.Add(f.Life))
	}
	return f.Deadline
}

// AcceptedUntil returns the deadline until which verifiers accept the key's token. It has passed for keys that are marked as
// expired, whatever the clock says, and for keys without a digest. It does not depend on suspension, which verifiers check besides.
func (f Facts) AcceptedUntil() expiry.Deadline {
	if !f.State().Alive() || !f.Findable() || f.Life > 0 {
		return expiry.Deadline{}
	}
	return f.Deadline
}

// RetiringAcceptedUntil returns the deadline until which verifiers accept the token before the last rotation: the end of the
// overlap, or the key's deadline if that is earlier.
func (f Facts) RetiringAcceptedUntil() expiry.Deadline {
	key := f.AcceptedUntil()
	if at, ok := key.Time(); !f.Rotation.Retiring || ok && at.Before(f.RetiresAt) {
		return key
	}
	return expiry.At(f.RetiresAt)
}

// RequestedRotationAt returns from when a requested rotation may begin, or false if none is requested. Two confirmed tokens are
// the most that a key has, so a request waits for the end of an overlap, unless it ends both tokens at once.
func (f Facts) RequestedRotationAt() (time.Time, bool) {
	if !f.Rotation.Requested {
		return time.Time{}, false
	}
	var at time.Time
	if !f.RotatedAt.IsZero() {
		at = f.RotatedAt.Add(rotation.MinInterval)
	}
	if f.Rotation.Retiring && !f.Rotation.AtOnce {
		at = latest(at, f.RetiresAt)
	}
	return at, true
}

// rotationAt returns when a rotation begins or continues, or false if none is due.
func (f Facts) rotationAt() (time.Time, bool) {
	if f.Rotation.Begun {
		return time.Time{}, true
	}
	at, requested := f.RequestedRotationAt()
	if f.NextRotationAt.IsZero() {
		return at, requested
	}
	next := f.NextRotationAt
	if f.Rotation.Retiring {
		next = latest(next, f.RetiresAt)
	}
	if requested && at.Before(next) {
		return at, true
	}
	return next, true
}

// RotationDue reports whether a rotation must begin or continue now.
func (f Facts) RotationDue(now time.Time) bool {
	at, ok := f.rotationAt()
	return ok && f.State().Out() && !now.Before(at)
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Expiring reports whether the key is in the last part of its life, in which it has the condition Expiring.
func (f Facts) Expiring(now time.Time) bool {
	warnFrom, ok := f.at(AtWarning, Verdict{}, now)
	return ok && f.State().Out() && !now.Before(warnFrom)
}

// at returns when a moment of the key's life comes, or false if it does not come by itself.
func (f Facts) at(moment Moment, verdict Verdict, now time.Time) (time.Time, bool) {
	switch moment {
	case AtDeadline:
		if f.Life > 0 {
			return time.Time{}, false
		}
		return f.Deadline.Time()
	case AtWithdrawal:
		return f.WithdrawAt, !f.WithdrawAt.IsZero() && !f.SecretDeleted
	case AtRetirement:
		return f.RetiresAt, f.Rotation.Retiring
	case AtRotation:
		return f.rotationAt()
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

// due returns the most important moment that has come in the key's state.
func (f Facts) due(verdict Verdict, now time.Time) Moment {
	for _, moment := range states[f.State()].moments {
		if at, ok := f.at(moment, verdict, now); ok && !now.Before(at) {
			return moment
		}
	}
	return NoMoment
}

const (
	// MaxWait is the maximum time until a key is checked again, because a wrong clock may have set the timer. A check that finds
	// nothing due sends no request.
	MaxWait = 10 * time.Minute

	// StaleDelay is the requeue delay after a conflict: the cache may not have the change yet.
	StaleDelay = 250 * time.Millisecond

	// skewDelay is the requeue delay while the clock is wrong.
	skewDelay = time.Minute

	// unreadDelay is the requeue delay while the rules can't be read. An event triggers a check, too, once they can.
	unreadDelay = time.Minute

	// The requeue delay of a key with a Secret conflict grows with the age of the conflict. Secrets are not watched, so no event
	// says that the other Secret is gone.
	minConflictDelay = time.Second
	maxConflictDelay = time.Minute

	// The requeue delay of a rotation that is blocked grows in the same way.
	maxBlockedDelay = 10 * time.Minute

	// atOnce is the requeue delay after a pass if another action is already due.
	atOnce = time.Millisecond
)

// Look says when a key must be checked again. The zero value says that time alone changes nothing.
type Look struct {
	moment time.Time
	delay  time.Duration
}

// Wait returns the time from now until the check: at least a millisecond and at most [MaxWait], or 0 if there is none.
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

// again returns when a key with these facts must be checked again.
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
	case actions[action].rotates && f.Rotation.Blocked:
		look.delay = min(max(now.Sub(f.Rotation.BlockedSince), minConflictDelay), maxBlockedDelay)
	case state.Out() && verdict.Rules == Unread && f.RotationDue(now):
		look.delay = unreadDelay
	case actions[action].leaves:
		look.delay = atOnce
	case states[state].polled:
		look.delay = MaxWait
	}
	return look
}
