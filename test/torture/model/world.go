package model

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"
)

// world is a history, sorted by subject.
type world struct {
	Promises

	// faults are in the order of their beginnings. reach[i] is when the last of the first i+1 faults ended.
	faults   []Fault
	reach    []time.Time
	downs    []Fault // of the API server
	starts   map[string][]time.Time
	beats    map[string][]time.Time
	settings map[string][]Operation // by the setting's name, in the order of the requests
	requests map[string][]Operation // of rotations and their ends, by the key's UID
	deletes  map[string]time.Time   // when the first deletion was requested, by the key's UID
	created  []Operation
	keys     map[string]*key   // by UID
	tokens   map[string]*token // by digest
	secrets  []Secret
	answers  []Answer
	settled  *Settled
	findings []Finding
}

// key is the life of an ApiKey.
type key struct {
	// seen is never empty, and in the order of the versions.
	seen []Key
}

func (k *key) last() Key { return k.seen[len(k.seen)-1] }

// lastBy returns the key as it was last seen by a moment, or false if it had not been seen.
func (k *key) lastBy(at time.Time) (Key, bool) {
	for _, seen := range slices.Backward(k.seen) {
		if !seen.At.After(at) {
			return seen, true
		}
	}
	return Key{}, false
}

// token is a digest that a key had.
type token struct {
	key *key
	// begin is when it was first seen.
	begin time.Time
	// end is when the digest was seen to be gone, or zero. mayEnd is the first moment at which it may have been gone.
	end, mayEnd time.Time
	deadline    time.Time
	// retires is the end of its overlap, or zero if it was never retiring. retiring is when it was first seen to be.
	retires, retiring time.Time
	// counted says that it was pending, or the token of an issued key.
	counted bool
}

func newWorld(h History, p Promises) *world {
	w := &world{
		Promises: p,
		starts:   map[string][]time.Time{}, beats: map[string][]time.Time{}, settings: map[string][]Operation{}, requests: map[string][]Operation{},
		deletes: map[string]time.Time{}, keys: map[string]*key{}, tokens: map[string]*token{},
	}
	for _, event := range h {
		switch e := event.(type) {
		case Operation:
			w.operation(e)
		case Fault:
			w.faults = append(w.faults, e)
			if e.Target == APIServer {
				w.downs = append(w.downs, e)
			}
		case Start:
			w.starts[e.Process] = append(w.starts[e.Process], e.At)
		case Beat:
			w.beats[e.Kind] = append(w.beats[e.Kind], e.At)
		case Key:
			if w.keys[e.UID] == nil {
				w.keys[e.UID] = &key{}
			}
			w.keys[e.UID].seen = append(w.keys[e.UID].seen, e)
		case Secret:
			w.secrets = append(w.secrets, e)
		case Answer:
			w.answers = append(w.answers, e)
		case Settled:
			w.settled = &e
		case Finding:
			w.findings = append(w.findings, e)
		}
	}
	slices.SortStableFunc(w.faults, func(a, b Fault) int { return a.From.Compare(b.From) })
	w.reach = make([]time.Time, len(w.faults))
	for i, f := range w.faults {
		w.reach[i] = orNever(f.To)
		if i > 0 && w.reach[i].Before(w.reach[i-1]) {
			w.reach[i] = w.reach[i-1]
		}
	}
	slices.SortStableFunc(w.answers, func(a, b Answer) int { return a.Start.Compare(b.Start) })
	for _, beats := range w.beats {
		slices.SortFunc(beats, time.Time.Compare)
	}
	for _, k := range w.keys {
		slices.SortStableFunc(k.seen, func(a, b Key) int { return cmp.Compare(a.Version, b.Version) })
	}
	for uid, k := range w.keys {
		w.tokensOf(uid, k)
	}
	return w
}

func (w *world) operation(o Operation) {
	switch o.Kind {
	case "create":
		w.created = append(w.created, o)
	case "delete":
		if first, ok := w.deletes[o.UID]; !ok || o.Asked.Before(first) {
			w.deletes[o.UID] = o.Asked
		}
	case "edit":
		w.settings[o.Subject] = append(w.settings[o.Subject], o)
	case Rotate, Retire:
		w.requests[o.UID] = append(w.requests[o.UID], o)
	case Suspend, Resume:
		name := suspension(o.UID)
		o.Value = &Setting{Suspended: o.Kind == Suspend}
		w.settings[name] = append(w.settings[name], o)
	}
}

// accepted are the digests by which verifiers accept the key, unless its deadline has passed or it is suspended: those of the current, the
// pending and the retiring token. The overlap of the latter may have passed.
func (k Key) accepted() []string {
	if k.Digest == "" || k.Gone || k.Reason == ReasonExpired {
		return nil
	}
	return slices.DeleteFunc([]string{k.Digest, k.Pending, k.Retiring}, func(digest string) bool { return digest == "" })
}

// tokensOf records when each digest of a key began and ended.
func (w *world) tokensOf(uid string, k *key) {
	asked, deleted := w.deletes[uid]
	live := map[string]*token{}
	var lastSeen time.Time
	for _, seen := range k.seen {
		accepted := seen.accepted()
		for digest, t := range live {
			if slices.Contains(accepted, digest) {
				continue
			}
			t.end = seen.At
			switch {
			case seen.Gone && deleted:
				t.mayEnd = asked
			case seen.Reason == ReasonExpired:
				// Verifiers refuse the token from the deadline, or from the mark if that came early.
				t.mayEnd = w.earliest(t.deadline, lastSeen, seen.At)
			default:
				t.mayEnd = lastSeen
			}
			if t.end.Before(t.mayEnd) {
				t.mayEnd = t.end
			}
			delete(live, digest)
		}
		for _, digest := range accepted {
			if w.tokens[digest] == nil {
				w.tokens[digest] = &token{key: k, begin: seen.At, deadline: orNever(seen.Deadline)}
			}
			t := w.tokens[digest]
			t.counted = t.counted || digest == seen.Pending || !seen.Issued.IsZero()
			if digest == seen.Retiring && t.retires.IsZero() {
				t.retires, t.retiring = seen.RetiresAt, seen.At
			}
			// A digest that comes back must not be accepted: its end stays.
			if t.end.IsZero() {
				live[digest] = t
			}
		}
		lastSeen = seen.At
	}
	for _, t := range live {
		if deleted {
			t.mayEnd = asked
		}
	}
}

// earliest returns the first moment at which an operator may have done what is due at a deadline. done is when that was seen. The moment
// is not before lastSeen, when it had not been done.
func (w *world) earliest(deadline, lastSeen, done time.Time) time.Time {
	at := deadline.Add(-w.ahead(done))
	if at.Before(lastSeen) {
		return lastSeen
	}
	return at
}

// ahead returns how far a trusted clock of an operator may have been ahead when it did what was seen at a moment. A clock that is off by
// more than the tolerance is not trusted.
func (w *world) ahead(done time.Time) time.Duration {
	var most time.Duration
	for f := range w.overlapping(w.horizon(operators, done), done) {
		if f.Kind == "jump" && f.Offset <= w.ClockTolerance {
			most = max(most, f.Offset)
		}
	}
	return most
}

// operators stands for all operators, because any of them may be the leader.
const operators = "operator"

// concerns reports whether a process may learn of changes later because of a fault.
func (f Fault) concerns(process string) bool {
	switch f.Target {
	case APIServer, Etcd, Machine:
		return true
	}
	return f.Target == process || (process == operators || process == reporters) && strings.HasPrefix(f.Target, process)
}

// horizon returns a moment in the past. At the time at, a process must know everything that this program had seen by that moment.
func (w *world) horizon(process string, at time.Time) time.Time {
	h := at.Add(-w.Watch)
	// Once the horizon has moved, a fault that was passed over may overlap it, but can't move it: it began later.
	for i := w.begunBy(at) - 1; i >= 0 && w.reach[i].After(h); i-- {
		f := w.faults[i]
		if f.concerns(process) && orNever(f.To).After(h) {
			if before := f.From.Add(-w.Watch); before.Before(h) {
				h = before
			}
		}
	}
	// A process reads the newest state when it starts.
	for _, start := range w.starts[process] {
		if !start.After(at) && start.After(h) {
			h = start
		}
	}
	return h
}

// disturbed reports whether a fault of one of the targets, or without targets one that concerns the process, overlaps an interval.
func (w *world) disturbed(process string, from, to time.Time, targets ...string) bool {
	for f := range w.overlapping(from, to) {
		if len(targets) == 0 && f.concerns(process) || slices.Contains(targets, f.Target) {
			return true
		}
	}
	return false
}

// begunBy returns how many faults began before a moment.
func (w *world) begunBy(at time.Time) int {
	n, _ := slices.BinarySearchFunc(w.faults, at, func(f Fault, at time.Time) int { return f.From.Compare(at) })
	return n
}

// overlapping returns the faults that overlap an interval, the last first.
func (w *world) overlapping(from, to time.Time) iter.Seq[Fault] {
	return func(yield func(Fault) bool) {
		for i := w.begunBy(to) - 1; i >= 0 && w.reach[i].After(from); i-- {
			if orNever(w.faults[i].To).After(from) && !yield(w.faults[i]) {
				return
			}
		}
	}
}

// mayBeStale reports whether the data of a verifier may have been stale or not loaded.
func (w *world) mayBeStale(a Answer) bool {
	if w.disturbed(a.Verifier, a.Start.Add(-w.MaxStaleness-w.Watch), a.End) {
		return true
	}
	from, to := a.Start.Add(-w.MaxStaleness+w.Watch), a.Start.Add(-w.Watch)
	for _, kind := range BeatKinds {
		beats := w.beats[kind]
		i, _ := slices.BinarySearchFunc(beats, from, time.Time.Compare)
		if i == len(beats) || beats[i].After(to) {
			return true
		}
	}
	return false
}

// mustBeStale reports whether the data of a verifier must have been stale.
func (w *world) mustBeStale(a Answer) bool {
	for _, down := range w.downs {
		if !down.From.Before(a.Start) || orNever(down.Back).Before(a.End) {
			continue
		}
		// What was sent before is received at the latest when the verifier, or the machine, continues.
		heard := down.From
		for f := range w.overlapping(down.From, a.End) {
			if end := orNever(f.To); (f.Target == a.Verifier || f.Target == Machine) && end.After(heard) {
				heard = end
			}
		}
		if a.Start.After(heard.Add(w.MaxStaleness + w.Watch)) {
			return true
		}
	}
	return false
}
