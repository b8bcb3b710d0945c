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

// The API server may refuse a key's Secret because of a quota of the namespace, or by an admission policy or a webhook. A policy
// or webhook may refuse all Secrets of the namespace, or only this one. Only the text of the error says which, and that is
// written for people. So the same rules apply to all refusals:
//
//   - Every key gets a first attempt of its own, even if other keys were refused. In a namespace that has refused a Secret
//     before, the attempt begins with a dry run, which mints and commits nothing.
//   - A key that is refused gets the reason DeliveryRefused and waits. The waiting keys of a namespace take turns: at each turn
//     one of them asks with a dry run. The time between two turns doubles from minPause to maxPause. The other keys cost only
//     a check in memory.
//   - Each successful delivery in the namespace allows two more turns at once. The next refusal shuts the gate again.
//
// So a namespace whose quota is used up costs one request every ten minutes, and a key that an admission policy refuses does not
// delay new keys. If a policy refuses many keys individually, a key that it accepts by now must wait for its turn, or be
// created again.

const (
	minPause = time.Second
	maxPause = 10 * time.Minute

	// maxTurns is the maximum number of keys of a namespace that are woken at once.
	maxTurns = 32

	// turnPatience is how long a woken key may take to use its turn. After that, other keys are woken.
	turnPatience = 10 * time.Second

	// wakeInterval is the minimum time between two checks for namespaces whose turn has come.
	wakeInterval = 200 * time.Millisecond
)

// gate is the state of a namespace in which the API server has refused a Secret.
type gate struct {
	// opens is the time from which turns may be taken, and turns their number.
	opens time.Time
	turns int
	// pause is how long the next refusal shuts the gate.
	pause time.Duration
	// round is incremented by each refusal, so that concurrent refusals count as one.
	round uint64
	// wake is when the next key must be woken, and woken the name of the key that was woken last.
	wake  time.Time
	woken string
}

// gates are the gates of all namespaces with waiting keys. A gate is removed with the last waiting key of its namespace. The
// zero value is ready for use. Nothing is persisted: the status of the keys says which of them wait.
type gates struct {
	mu          sync.Mutex
	byNamespace map[string]*gate
	// changed, if set, is called after each change of the time at which a key must be woken. It must not block.
	changed func()
}

// round returns the current round of a namespace, and whether the namespace has refused a Secret.
func (g *gates) round(namespace string) (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.byNamespace[namespace]; known != nil {
		return known.round, true
	}
	return 0, false
}

// turn takes a turn in the namespace, if one is available, and returns the round that it belongs to. After a restart, the
// first key that asks gets a turn.
func (g *gates) turn(namespace string, now time.Time) (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.byNamespace[namespace]
	if known == nil {
		known = g.add(namespace, now)
		known.turns = 1
	}
	if known.turns == 0 && !now.Before(known.opens) {
		known.turns = 1 // the last turn ended without a delivery or a refusal
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

// refused shuts the gate of a namespace for the current pause, and doubles the pause.
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

// delivered adds two turns to the gate of a namespace, if there is one.
func (g *gates) delivered(namespace string, round uint64, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.byNamespace[namespace]
	if known == nil || known.round != round {
		return
	}
	if now.Before(known.opens) {
		known.turns = 0 // the remaining turn was for later
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

// due returns the gates of the namespaces in which keys must be woken now, and the time at which the next one is due, or
// zero if there is none. Each returned namespace becomes due again after a while, in case no key uses its turn.
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

// awoken records which key was woken last. An empty name means that no key waits in the namespace: its gate is removed,
// unless it was shut meanwhile.
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

// askGate finds out whether delivery may be tried now, and whether a dry run must precede it. A key that was refused before
// uses up a turn.
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

// notAToken is the content of the Secret in a dry run.
const notAToken = "not a token: this Secret is only a dry run" //nolint:gosec // it is not a token

// askFirst asks the API server with a dry run whether it accepts the key's Secret. It returns nil if the Secret is accepted,
// and also if that can't be known: a name conflict is handled later, and a webhook with side effects can't be asked, which
// the API server reports as a bad request.
func (r *Reconciler) askFirst(ctx context.Context, s *scope) error {
	err := r.Client.Create(quiet(ctx), newSecret(s.key, notAToken), client.DryRunAll)
	if apierrors.IsAlreadyExists(err) || apierrors.ReasonForError(err) == metav1.StatusReasonBadRequest {
		return nil
	}
	return err
}

// refusal reports whether the API server processed a request and refused it. Webhooks choose the status code of a refusal
// freely.
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

// refuseDelivery records in the status why the API server refuses the Secret. For a key that is already waiting it rewrites
// the message only if more than numbers changed in it, because numbers such as the used part of a quota change all the time.
func (r *Reconciler) refuseDelivery(ctx context.Context, s *scope, why string, nothingLeft bool) error {
	if s.asked.Gate != lifecycle.AskFirst { // the first attempts of new keys must not make others wait longer
		r.gates.refused(s.key.Namespace, s.round, r.Clock.Now())
	}
	message := fmt.Sprintf("the API server refused to %s; the operator retries soon at first and later every ten minutes, in turn with "+
		"other pending keys of this namespace", clip(why))
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

// waker enqueues the keys whose turn has come, with the lowest priority.
type waker struct {
	reconciler *Reconciler
	// changed signals that gates have changed. Its capacity is 1.
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

// wake enqueues the keys whose turn has come, and returns the time until the next turn.
func (w *waker) wake(ctx context.Context, q queue) time.Duration {
	r := w.reconciler
	due, next := r.gates.due(r.Clock.Now())
	for namespace, known := range due {
		names, err := w.waiting(ctx, namespace)
		if err != nil {
			log.FromContext(ctx).Error(err, "Failed to list pending keys, retrying", "namespace", namespace)
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

// waiting returns the sorted names of the keys that wait in a namespace.
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

// byTurns returns the next n of the sorted names after last, continuing at the first name after the end.
func byTurns(names []string, last string, n int) []string {
	at, found := slices.BinarySearch(names, last)
	if found {
		at++
	}
	around := slices.Concat(names[at:], names[:at])
	return around[:min(n, len(around))]
}
