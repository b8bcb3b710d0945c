// Package issuing turns an ApiKey into a token, and withdraws the token's Secret in time; it is the only writer of ApiKey status
// and of Secrets, and it never lists, watches or caches a Secret.
package issuing

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/grant"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

const (
	// A pass outlives the manager's stop by this much at most, so that a key is not left half issued by a rollout. It
	// must be shorter than the manager's grace period.
	passTimeout = 20 * time.Second

	// The clock may be set while a pass waits for an answer. What was judged by a moment this far away is judged anew.
	maxJump = time.Minute

	// Retries of what failed, per key: from 5 ms, doubling, to a minute.
	minRetryDelay = 5 * time.Millisecond
	maxRetryDelay = time.Minute
)

// Reconciler issues, maintains and expires one ApiKey at a time. All fields are required.
type Reconciler struct {
	// Client reads ApiKeys from the cache, and writes their status and Secrets.
	Client client.Client
	// Live reads Secrets, and the few ApiKeys for which a cached view is not enough, from the API server.
	Live client.Reader
	// Rules say which keys may be issued.
	Rules *rulebook.Book
	// Recorder emits events, on transitions only.
	Recorder events.EventRecorder
	// Metrics are told of every transition.
	Metrics *Metrics
	// Clock is read once a pass.
	Clock clock.PassiveClock
	// Skew is this machine's time less the API server's. It is asked before a decision that depends on time.
	Skew func(context.Context) (time.Duration, error)
	// TokenPrefix is the prefix of tokens minted from now on.
	TokenPrefix string
	// TTLAfterExpired is how long an expired ApiKey stays where its spec does not say.
	TTLAfterExpired time.Duration

	gates gates
}

// SetupWithManager registers the reconciler with a manager, at the given number of workers.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, workers int) error {
	sweeper := newSweeper(r)
	return ctrl.NewControllerManagedBy(mgr).
		Named("issuing").
		Watches(&v1alpha1.ApiKey{}, r.keyEvents(sweeper.read)).
		WatchesRawSource(sweeper).
		WatchesRawSource(newWaker(r)).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](
				minRetryDelay, maxRetryDelay),
		}).
		Complete(r)
}

// scope is one pass over one key: the object as last read or written, and the moment at which all is judged.
type scope struct {
	key   *v1alpha1.ApiKey
	now   time.Time
	facts lifecycle.Facts
	// asked is what has been asked for so far, and plan what is to be done, as far as is known by that.
	asked lifecycle.Verdict
	plan  lifecycle.Step
	// verdict is what roles and policies say, in words; Unjudged where they were not asked, or can't be.
	verdict grant.Verdict
	// round is that of the namespace's gate.
	round uint64
	// skew is the clock's, where it was asked for.
	skew time.Duration
	// wait is how long until the next pass; 0 if only an event brings it.
	wait time.Duration
}

// errStale says that what the pass was decided on is no longer so. It is not a failure: the pass ends, and the key is
// looked at again.
var errStale = errors.New("the view that this was decided on is stale")

// Reconcile brings one ApiKey a step on. It returns an error only for what is worth telling an operator; what its user
// must mend is in the key's conditions.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), passTimeout)
	defer cancel()

	key := &v1alpha1.ApiKey{}
	if err := r.Client.Get(ctx, req.NamespacedName, key); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	s := &scope{key: key, now: r.Clock.Now().UTC().Truncate(time.Second)}

	var err error
	for _, step := range []func(context.Context, *scope) error{r.read, r.decide, r.do, r.lookAgain} {
		if err = step(ctx, s); err != nil {
			break
		}
	}
	switch {
	case errors.Is(err, errStale) || apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: lifecycle.StaleDelay}, nil
	case apierrors.IsNotFound(err):
		// Deleted under our hands, or asked of an API server that does not serve the kind yet. The cache will tell.
		return ctrl.Result{RequeueAfter: time.Second}, nil
	default:
		return ctrl.Result{RequeueAfter: s.wait, Priority: priority(s.key)}, err
	}
}

// read reads the facts of the key.
func (r *Reconciler) read(_ context.Context, s *scope) error {
	var err error
	if s.facts, err = facts.Of(s.key, r.TTLAfterExpired); err != nil {
		// The schema refuses such a spec: trying again can't help.
		return reconcile.TerminalError(err)
	}
	return nil
}

// decide plans, and asks for what the plan hangs on, until there is something to do.
func (r *Reconciler) decide(ctx context.Context, s *scope) error {
	for {
		s.plan = lifecycle.Plan(s.facts, s.asked, s.now)
		var err error
		switch s.plan.Action {
		case lifecycle.AskRules:
			err = r.askRules(ctx, s)
		case lifecycle.AskGate:
			r.askGate(s)
		case lifecycle.AskClock:
			err = r.askClock(ctx, s)
		default:
			log.FromContext(ctx).V(1).Info("planned", "state", s.plan.State.String(), "action", s.plan.Action.String(), "why", s.plan.Why)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// do does what is planned, and writes what came of it.
func (r *Reconciler) do(ctx context.Context, s *scope) error {
	switch s.plan.Action {
	case lifecycle.TellUnread:
		return r.tellUnread(ctx, s)
	case lifecycle.TellSkew:
		return r.write(ctx, s, clockSkewed{s.skew})
	case lifecycle.Refuse:
		return r.write(ctx, s, refused{verdict: s.verdict})
	case lifecycle.TakeBack:
		return r.takeBack(ctx, s)
	case lifecycle.Issue:
		return r.issue(ctx, s)
	case lifecycle.Try:
		return r.try(ctx, s)
	case lifecycle.Resume:
		return r.resume(ctx, s, token.Token{})
	case lifecycle.Suspend, lifecycle.Lift:
		return r.suspend(ctx, s)
	case lifecycle.Withdraw:
		return r.withdraw(ctx, s)
	case lifecycle.Expire:
		return r.expire(ctx, s)
	case lifecycle.Settle, lifecycle.Hold, lifecycle.Collect: // to collect a key is another controller's
		return r.write(ctx, s, nothingNew{})
	default:
		return nil
	}
}

// lookAgain says when the next pass over the key is, as it is now.
func (r *Reconciler) lookAgain(ctx context.Context, s *scope) error {
	if err := r.read(ctx, s); err != nil {
		return err
	}
	// Counted from the clock itself and not from the pass's truncated moment, or the next pass would be late by
	// what was cut off.
	s.wait = lifecycle.Plan(s.facts, s.asked, s.now).Again.Wait(r.Clock.Now())
	return nil
}

// askClock measures the clock.
func (r *Reconciler) askClock(ctx context.Context, s *scope) error {
	skew, err := r.Skew(ctx)
	if err != nil {
		return err
	}
	s.skew, s.asked.Clock = skew, lifecycle.ClockOff(skew)
	if s.asked.Clock == lifecycle.Right && r.Clock.Now().Sub(s.now).Abs() > maxJump {
		return errStale
	}
	return nil
}

// expire ends a key whose deadline has passed: first its Secret, if that is still its own, then the status. It does so too
// for a key that was never confirmed, and for one that never had a token.
func (r *Reconciler) expire(ctx context.Context, s *scope) error {
	if s.facts.SecretLeft() {
		if _, err := r.deleteOwnSecret(ctx, s); err != nil {
			return err
		}
	}
	return r.write(ctx, s, expired{})
}

// withdraw deletes the Secret of a key that lives on. A Secret that is gone already, or was replaced by another's, counts
// as withdrawn.
func (r *Reconciler) withdraw(ctx context.Context, s *scope) error {
	deleted, err := r.deleteOwnSecret(ctx, s)
	if err != nil {
		return err
	}
	return r.write(ctx, s, withdrawn{deleted})
}
