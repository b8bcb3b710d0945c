package model

import (
	"fmt"
	"slices"
	"time"
)

// judgeEnd judges the state after everything has settled.
func (w *world) judgeEnd() []Violation {
	if w.settled == nil {
		return nil
	}
	end := *w.settled
	var found []Violation
	wrong := func(rule, subject, who, expected, got string) {
		found = append(found, Violation{Rule: rule, Subject: subject, At: end.Until, Who: who, Expected: expected, Got: got})
	}
	for _, o := range w.created {
		// A key that was deleted soon may have come and gone while the watch was interrupted.
		if _, deleted := w.deletes[o.UID]; !o.Answered.IsZero() && !deleted && w.keys[o.UID] == nil {
			wrong(RuleUnseen, o.UID, "the watch of this program", "to show "+o.Subject, "silent about it")
		}
	}
	opened, asked := w.tried(end)
	for uid, k := range w.keys {
		if last, ok := k.lastBy(end.Until); ok && !last.Gone {
			w.judgeLast(last, end, func(who, expected, got string) { wrong(RuleLost, uid, who, expected, got) })
			lives := !k.last().Gone && asked.Before(orNever(last.Deadline))
			if last.Reason == ReasonIssued && !last.Suspended && lives && !opened[last.Digest] {
				wrong(RuleLost, uid, "verifiers", "that the token of an issued key is accepted at the end", "it was not")
			}
		}
	}
	for _, s := range end.Secrets {
		if who, expected := w.leftBehind(s); expected != "" {
			wrong(RuleLeft, s.Owner, who, expected, "there is "+s.Namespace+"/"+s.Name)
		}
	}
	return found
}

// tried returns the digests that were accepted after everything had settled, and when the last answer was received.
func (w *world) tried(end Settled) (opened map[string]bool, until time.Time) {
	opened, until = map[string]bool{}, end.Until
	for _, a := range w.answers {
		if a.Start.After(end.At) {
			opened[a.Digest] = opened[a.Digest] || a.Result == Allowed
			if a.End.After(until) {
				until = a.End
			}
		}
	}
	return opened, until
}

// judgeLast judges the status of a key that exists at the end.
func (w *world) judgeLast(last Key, end Settled, wrong func(who, expected, got string)) {
	issued := last.Reason == ReasonIssued || last.Reason == ReasonSuspended
	overdue := !last.Deadline.IsZero() && last.Deadline.Before(end.At)
	_, must := w.grants(last, end.At, end.At)
	switch {
	case last.Reason == ReasonExpired:
	case overdue:
		wrong("the operators", "the mark Expired, since the deadline was at "+face(last.Deadline), "the reason "+last.Reason)
	case !issued && must:
		wrong("the operators", "that the key is issued, since catalogue and policies allow it", "the reason "+last.Reason)
	case issued && last.Suspended != (last.Reason == ReasonSuspended):
		wrong("the operators", fmt.Sprintf("a reason that fits spec.suspend, which is %t", last.Suspended), "the reason "+last.Reason)
	}
	if issued && !overdue {
		w.judgeLastRotation(last, end, wrong)
	}
	if last.Lagging {
		wrong("the operators", "a status of the last edit of the spec", "one of an earlier edit")
	}
}

// leftBehind says why a Secret should not exist at the end, and who should have deleted it. Both are "" if it may exist.
func (w *world) leftBehind(s Secret) (who, expected string) {
	k := w.keys[s.Owner]
	if k == nil {
		return "", ""
	}
	last, ok := k.lastBy(w.settled.Until)
	switch {
	case !ok:
	case last.Gone && w.replacedUnseen(last):
	case last.Gone:
		return "the garbage collector", "no Secret of a key that has gone"
	case last.Reason == ReasonExpired:
		return "the operators", "no Secret of an expired key"
	case s.Digest != "" && last.Digest != s.Digest && last.Pending != s.Digest:
		return "the operators", "no Secret with a token that does not count"
	}
	return "", ""
}

// replacedUnseen reports whether Kubernetes' garbage collector may not know that a key has gone. It loses its watch while the API server or
// etcd is down. If the key was deleted and created again meanwhile, it takes the new key for a change of the old one, and keeps what belongs
// to the old one. The operator deletes the old Secret when it issues the new key, so only a key that was not issued excuses it.
func (w *world) replacedUnseen(gone Key) bool {
	unseen := false
	for uid, k := range w.keys {
		next := k.last()
		begun := w.begins(k)
		if uid == gone.UID || next.Namespace != gone.Namespace || next.Name != gone.Name || begun.Before(w.begins(w.keys[gone.UID])) {
			continue
		}
		if slices.ContainsFunc(k.seen, func(seen Key) bool { return !seen.Issued.IsZero() }) {
			return false
		}
		unseen = unseen || w.watchLost(gone.At, begun)
	}
	return unseen
}

// watchLost reports whether a client may have had no watch of ApiKeys from one moment until another. After a fault it may wait as long as
// the fault lasted, because its backoff doubles.
func (w *world) watchLost(from, until time.Time) bool {
	return slices.ContainsFunc(w.faults, func(f Fault) bool {
		if f.Target != APIServer && f.Target != Etcd {
			return false
		}
		to := orNever(f.To)
		back := to.Add(to.Sub(f.From) + w.Watch)
		return f.From.Before(from.Add(w.Watch)) && back.After(until)
	})
}

// begins returns when the creation of a key was requested, or else when the key was first seen.
func (w *world) begins(k *key) time.Time {
	for _, o := range w.created {
		if o.UID == k.last().UID {
			return o.Asked
		}
	}
	return k.seen[0].At
}
