package usage

import (
	"slices"
	"sync"
	"time"
)

// Key identifies the key that a use belongs to.
type Key struct {
	Namespace, Name, UID string
}

// Waiting is a use that waits to be recorded.
type Waiting struct {
	Key
	// At is the last use of any token of the key that was reported.
	At time.Time
	// Retiring is the digest of the retiring token if a use of it was reported, and RetiringAt is when it was last used.
	Retiring   string
	RetiringAt time.Time
	// Since is when the key began to wait.
	Since time.Time
}

// Ledger holds the reported uses that are not recorded yet, one for each key, and says which is recorded next: namespaces
// take turns, and within a namespace the key that was added first comes first. It is safe for concurrent use. The zero value
// is empty.
type Ledger struct {
	mu     sync.Mutex
	byUID  map[string]*Waiting
	queues map[string][]*Waiting // by namespace
	turns  []string              // namespaces with a queue; the first is next
}

// Add adds a use. If the key waits already, the later use replaces the earlier one, and the key keeps its place.
func (l *Ledger) Add(use Waiting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.byUID[use.UID]; known != nil {
		known.merge(use)
		return
	}
	if l.byUID == nil {
		l.byUID, l.queues = map[string]*Waiting{}, map[string][]*Waiting{}
	}
	l.byUID[use.UID] = &use
	if _, queued := l.queues[use.Namespace]; !queued {
		l.turns = append(l.turns, use.Namespace)
	}
	l.queues[use.Namespace] = append(l.queues[use.Namespace], &use)
}

// merge adds a use of the same key. A use of another retiring token replaces that of the one before.
func (w *Waiting) merge(use Waiting) {
	if use.At.After(w.At) {
		w.At = use.At
	}
	if use.Retiring != "" && (use.Retiring != w.Retiring || use.RetiringAt.After(w.RetiringAt)) {
		w.Retiring, w.RetiringAt = use.Retiring, use.RetiringAt
	}
}

// Next removes the next use and returns it, or false if there is none. A use that can't be recorded now must be added again.
func (l *Ledger) Next() (Waiting, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.turns) == 0 {
		return Waiting{}, false
	}
	namespace := l.turns[0]
	l.turns = slices.Delete(l.turns, 0, 1)
	queue := l.queues[namespace]
	next := queue[0]
	queue[0] = nil // for the garbage collector
	if len(queue) == 1 {
		delete(l.queues, namespace)
	} else {
		l.queues[namespace] = queue[1:]
		l.turns = append(l.turns, namespace)
	}
	delete(l.byUID, next.UID)
	return *next, true
}

// Waiting returns how many keys wait, and since when the first of them has. The time is zero if none waits.
func (l *Ledger) Waiting() (keys int, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, queue := range l.queues {
		if since.IsZero() || queue[0].Since.Before(since) {
			since = queue[0].Since
		}
	}
	return len(l.byUID), since
}

// Clamp limits a reported time to what is possible: not before issue, and not after now. It truncates to whole seconds.
func Clamp(at, issued, now time.Time) time.Time {
	if at.After(now) {
		at = now
	}
	if at.Before(issued) {
		at = issued
	}
	return at.Truncate(time.Second)
}
