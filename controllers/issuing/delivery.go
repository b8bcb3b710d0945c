package issuing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
)

// The API server may refuse a key's Secret: for a quota of the namespace, or by an admission policy or a webhook, which may judge the
// namespace or the one Secret. Only the text of a refusal tells which, and that is for people. So the rule does not ask:
//
//   - The first attempt of a key is its own, whatever was refused to others. In a namespace that has refused before, it begins with a dry
//     run, which mints and commits nothing.
//   - A key that was refused is told so once, with the reason DeliveryRefused, and waits. Those that wait in a namespace have one turn
//     between them: when its time comes, one of them asks by a dry run, the next one at the next time. The time between two doubles
//     from minPause to maxPause. What the others cost meanwhile is a look in memory.
//   - What was delivered in that namespace, to whichever key, opens the gate by two more turns. The first refusal shuts it again.
//
// So a quota of a full namespace costs one request every ten minutes, and a key that an admission policy refuses for itself holds up no
// new key. Where a policy refuses many keys each for itself, one that it has come to accept must wait for its turn, or be made anew.

const (
	minPause = time.Second
	maxPause = 10 * time.Minute

	// So many keys of a namespace are woken at once at most.
	maxTurns = 32

	// A key that was woken for a turn and did not take it, as it has gone meanwhile, is given up after this long.
	turnPatience = 10 * time.Second

	// Namespaces are looked at for turns no more often than this.
	wakeInterval = 200 * time.Millisecond
)

// gate is what is known of a namespace that has refused a Secret.
type gate struct {
	// From opens on, so many turns may be taken.
	opens time.Time
	turns int
	// pause is how long the gate stays shut after the next refusal.
	pause time.Duration
	// round is raised by each refusal, so that those that were on their way at the same time count as one.
	round uint64
	// wake is when the next key must be woken, and woken the name of the last one that was.
	wake  time.Time
	woken string
}

// gates are those of all namespaces. There are as many as there are namespaces in which a key waits: a gate goes with the last of
// these. The zero value is ready for use, and nothing of it outlives the process: the keys' own status says who waits.
type gates struct {
	mu          sync.Mutex
	byNamespace map[string]*gate
	// changed, if set, is called after each change of when a key must be woken. It must be quick.
	changed func()
}

// round tells whether a namespace has refused a Secret, and the round that an attempt there belongs to.
func (g *gates) round(namespace string) (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.byNamespace[namespace]; known != nil {
		return known.round, true
	}
	return 0, false
}

// turn gives a turn to a key that waits, if there is one. After a restart the first one that asks gets it.
func (g *gates) turn(namespace string, now time.Time) (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.byNamespace[namespace]
	if known == nil {
		known = g.add(namespace, now)
		known.turns = 1
	}
	if known.turns == 0 && !now.Before(known.opens) {
		known.turns = 1 // the last one that had a turn came to nothing, neither yes nor no
	}
	if known.turns == 0 || now.Before(known.opens) {
		return known.round, false
	}
	if known.turns--; known.turns == 0 {
		known.opens = now.Add(known.pause)
		known.wake = known.opens
		g.notify()
	}
	return known.round, true
}

func (g *gates) add(namespace string, now time.Time) *gate {
	if g.byNamespace == nil {
		g.byNamespace = map[string]*gate{}
	}
	added := &gate{opens: now, pause: minPause, round: 1, wake: now}
	g.byNamespace[namespace] = added
	return added
}

// refused shuts the gate for a while.
func (g *gates) refused(namespace string, round uint64, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.byNamespace[namespace]
	switch {
	case known == nil:
		known = g.add(namespace, now)
	case known.round != round:
		return
	}
	known.round++
	known.turns = 1
	known.opens = now.Add(known.pause)
	known.wake = known.opens
	known.pause = min(2*known.pause, maxPause)
	g.notify()
}

// delivered opens the gate, if there is one.
func (g *gates) delivered(namespace string, round uint64, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.byNamespace[namespace]
	if known == nil || known.round != round {
		return
	}
	if now.Before(known.opens) {
		known.turns = 0 // what there was, was for later
	}
	known.turns = min(known.turns+2, maxTurns)
	known.opens, known.wake = now, now
	known.pause = minPause
	g.notify()
}

func (g *gates) notify() {
	if g.changed != nil {
		g.changed()
	}
}

// due are the namespaces in which keys must be woken now, with the name to go on after and the number of turns. Each is looked at again
// after a while, should none of those turns be taken. next is when the earliest of all is due; zero where there is none.
func (g *gates) due(now time.Time) (due map[string]gate, next time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	due = map[string]gate{}
	for namespace, known := range g.byNamespace {
		if !now.Before(known.wake) {
			due[namespace] = *known
			known.wake = now.Add(max(known.pause, turnPatience))
		}
		if next.IsZero() || known.wake.Before(next) {
			next = known.wake
		}
	}
	return due, next
}

// awoken notes which key was woken last; "" means that none waits in this namespace, and its gate goes, unless it was shut meanwhile.
func (g *gates) awoken(namespace string, seen gate, last string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.byNamespace[namespace]
	switch {
	case known == nil:
	case last != "":
		known.woken = last
	case known.round == seen.round:
		delete(g.byNamespace, namespace)
	}
}

// askGate asks whether the key may be tried now, and whether it must ask by a dry run before. A key that was refused takes a turn by this.
func (r *Reconciler) askGate(s *scope) {
	if s.plan.State == lifecycle.Held {
		var turn bool
		s.round, turn = r.gates.turn(s.key.Namespace, r.Clock.Now())
		s.asked.Gate = lifecycle.Shut
		if turn {
			s.asked.Gate = lifecycle.Turn
		}
		return
	}
	var shut bool
	s.round, shut = r.gates.round(s.key.Namespace)
	s.asked.Gate = lifecycle.Open
	if shut {
		s.asked.Gate = lifecycle.AskFirst
	}
}

// notAToken is what the Secret of a dry run holds.
const notAToken = "no token: this Secret is created by a dry run, to ask whether it may be" //nolint:gosec // as it says

// askFirst asks the API server by a dry run whether it would take the key's Secret. nil means that it would, as far as can be known: a
// name that is taken is looked into later, and a webhook with side effects, such as old clusters have, can't be asked, which the API server
// answers with a bad request.
func (r *Reconciler) askFirst(ctx context.Context, s *scope) error {
	err := r.Client.Create(quiet(ctx), newSecret(s.key, notAToken), client.DryRunAll)
	if apierrors.IsAlreadyExists(err) || apierrors.ReasonForError(err) == metav1.StatusReasonBadRequest {
		return nil
	}
	return err
}

// refusal tells whether the API server has judged a request and will not have it. Webhooks choose the code of their refusals freely.
func refusal(err error) bool {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return false
	}
	switch code := answer.Status().Code; code {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	default:
		return code >= http.StatusBadRequest && code < http.StatusInternalServerError
	}
}

// refuseDelivery tells the user why the API server does not take the Secret. One who waits already is told again only if the reason is
// another: numbers in it, such as how much of a quota is used, come and go.
func (r *Reconciler) refuseDelivery(ctx context.Context, s *scope, why string, nothingLeft bool) error {
	if s.asked.Gate != lifecycle.AskFirst { // else it tried for itself alone: a flood of new keys must not make the others wait longer
		r.gates.refused(s.key.Namespace, s.round, r.Clock.Now())
	}
	message := fmt.Sprintf("the API server refuses to %s; tried again until it agrees, at first soon and later every ten minutes, with "+
		"other keys of this namespace by turns", clip(why))
	if s.facts.State() == lifecycle.Held && withoutDigits(s.key.Condition(v1alpha1.ConditionReady).Message) == withoutDigits(message) {
		return r.write(ctx, s, nothingNew{})
	}
	return r.write(ctx, s, undelivered{message, nothingLeft})
}

func withoutDigits(text string) string {
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, text)
}

// waker gives the turns at the gates to keys, at the lowest priority.
type waker struct {
	reconciler *Reconciler
	// changed holds at most one token.
	changed chan struct{}
}

func newWaker(r *Reconciler) *waker {
	w := &waker{reconciler: r, changed: make(chan struct{}, 1)}
	r.gates.changed = func() {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
	return w
}

// Start implements source.Source.
func (w *waker) Start(ctx context.Context, q queue) error {
	go func() {
		for {
			pause := w.wake(ctx, q)
			select {
			case <-ctx.Done():
				return
			case <-w.changed:
			case <-time.After(pause):
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wakeInterval):
			}
		}
	}()
	return nil
}

// wake wakes those whose turn it is, and says how long until the next.
func (w *waker) wake(ctx context.Context, q queue) time.Duration {
	r := w.reconciler
	due, next := r.gates.due(r.Clock.Now())
	for namespace, known := range due {
		names, err := w.waiting(ctx, namespace)
		if err != nil {
			log.FromContext(ctx).Error(err, "look for keys to deliver; tried again", "namespace", namespace)
			continue
		}
		last := ""
		for _, name := range byTurns(names, known.woken, max(known.turns, 1)) {
			last = name
			request := reconcile.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}}
			if prioritised, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
				prioritised.AddWithOpts(priorityqueue.AddOpts{Priority: ptr.To(waitingPriority)}, request)
			} else {
				q.Add(request)
			}
		}
		r.gates.awoken(namespace, known, last)
	}
	if next.IsZero() {
		return maxPause
	}
	return max(next.Sub(r.Clock.Now()), 0)
}

// waiting are the names of the keys that wait in a namespace, in order.
func (w *waker) waiting(ctx context.Context, namespace string) ([]string, error) {
	keys := &v1alpha1.ApiKeyList{}
	if err := w.reconciler.Client.List(ctx, keys, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	var names []string
	for i := range keys.Items {
		if key := &keys.Items[i]; facts.State(key) == lifecycle.Held {
			names = append(names, key.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// byTurns are the next n of sorted names after the last one that had its turn, all around.
func byTurns(names []string, last string, n int) []string {
	at, found := slices.BinarySearch(names, last)
	if found {
		at++
	}
	around := slices.Concat(names[at:], names[:at])
	return around[:min(n, len(around))]
}
