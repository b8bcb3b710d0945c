// Package issuing issues API keys, deletes their Secrets when they are due, and marks keys as expired. It is the only writer
// of Secrets, and of ApiKey status except for the times of last use, which package recording writes. It must not list, watch or
// cache Secrets.
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
	// passTimeout limits a reconcile. A reconcile continues after the manager is stopped, so that a rollout does not leave a
	// key half issued. It must be shorter than the manager's grace period.
	passTimeout = 20 * time.Second

	// The delay between retries of a key doubles from minRetryDelay to maxRetryDelay.
	minRetryDelay = 5 * time.Millisecond
	maxRetryDelay = time.Minute
)

// Reconciler issues, maintains and expires one ApiKey at a time. All exported fields are required.
type Reconciler struct {
	// Client reads ApiKeys from the cache, and writes their status and their Secrets.
	Client client.Client
	// Live reads from the API server: Secrets, and ApiKeys where the cache may be too old.
	Live client.Reader
	// Rules decides which keys may be issued.
	Rules *rulebook.Book
	// Recorder emits events, on transitions only.
	Recorder events.EventRecorder
	// Metrics counts transitions.
	Metrics *Metrics
	// Clock gives the time by which a reconcile judges a key.
	Clock clock.PassiveClock
	// Skew returns this machine's time minus the API server's. It is called before every decision that depends on time.
	Skew func(context.Context) (time.Duration, error)
	// TokenPrefix is the prefix of tokens minted from now on.
	TokenPrefix string
	// TTLAfterExpired is how long an expired ApiKey is kept if spec.ttlAfterExpired is absent.
	TTLAfterExpired time.Duration
	// MinRotationEvery is the least time between two rotations by schedule. A shorter spec.rotation.every counts as this.
	MinRotationEvery time.Duration

	gates gates
}

// SetupWithManager adds the reconciler to a manager. workers is the number of keys that are reconciled at the same time.
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

// scope is one reconcile of one key: the object as last read or written, and the time by which everything is judged.
type scope struct {
	key   *v1alpha1.ApiKey
	now   time.Time
	facts lifecycle.Facts
	// asked is what has been found out so far, and plan the next step that follows from it.
	asked lifecycle.Verdict
	plan  lifecycle.Step
	// verdict is the verdict of roles and policies. Its outcome is Unjudged if they were not asked or can't be.
	verdict grant.Verdict
	// round is the round of the namespace's gate in which the key is tried.
	round uint64
	// skew is the measured clock skew, or 0 if it was not measured.
	skew time.Duration
	// wait is the time until the next reconcile; 0 if only an event triggers it.
	wait time.Duration
}

// errStale says that the state on which a pass was decided has changed. It is not a failure: the pass ends, and the key is
// requeued.
var errStale = errors.New("the cached state is stale")

// Reconcile advances one ApiKey by one step. It returns an error only for failures that an administrator must see; what the
// user must fix is in the key's conditions.
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
		// The key was deleted meanwhile, or the API server does not serve the kind yet. The cache will catch up.
		return ctrl.Result{RequeueAfter: time.Second}, nil
	default:
		return ctrl.Result{RequeueAfter: s.wait, Priority: priority(s.key)}, err
	}
}

// read derives the facts of the key from its spec and status.
func (r *Reconciler) read(_ context.Context, s *scope) error {
	var err error
	if s.facts, err = facts.Of(s.key, r.TTLAfterExpired); err != nil {
		// The schema refuses such a spec, so a retry can't help.
		return reconcile.TerminalError(err)
	}
	return nil
}

// decide plans the next step, and finds out what the plan depends on until there is a step to do.
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
			log.FromContext(ctx).V(1).Info("Planned", "state", s.plan.State.String(), "action", s.plan.Action.String(), "why", s.plan.Why)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// do performs the planned step and writes its outcome.
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
	case lifecycle.Rotate, lifecycle.ResumeRotation:
		return r.rotate(ctx, s)
	case lifecycle.BlockRotation:
		return r.blockRotation(ctx, s)
	case lifecycle.Retire:
		return r.retire(ctx, s, "")
	case lifecycle.RetireNow:
		return r.retire(ctx, s, s.key.RetirementRequest())
	case lifecycle.Withdraw:
		return r.withdraw(ctx, s)
	case lifecycle.Expire:
		return r.expire(ctx, s)
	case lifecycle.Settle, lifecycle.Hold, lifecycle.Collect: // package expiring collects keys
		return r.write(ctx, s, nothingNew{})
	default:
		return nil
	}
}

// lookAgain computes the time until the next reconcile from the key as it is now.
func (r *Reconciler) lookAgain(ctx context.Context, s *scope) error {
	if err := r.read(ctx, s); err != nil {
		return err
	}
	// Wait counts from the current time, since s.now is truncated and would make the next reconcile up to a second late.
	s.wait = lifecycle.Plan(s.facts, s.asked, s.now).After(s.plan.Action).Wait(r.Clock.Now())
	return nil
}

// askClock measures the clock skew.
func (r *Reconciler) askClock(ctx context.Context, s *scope) error {
	skew, err := r.Skew(ctx)
	if err != nil {
		return err
	}
	s.skew, s.asked.Clock = skew, lifecycle.ClockOff(skew)
	if s.asked.Clock == lifecycle.Right && lifecycle.Jumped(s.now, r.Clock.Now()) {
		return errStale
	}
	return nil
}

// expire deletes the Secret of a key whose expiry time has passed, if the Secret belongs to the key, and then marks the key
// as expired. It also handles keys that were never confirmed, and keys that never had a token.
func (r *Reconciler) expire(ctx context.Context, s *scope) error {
	if s.facts.SecretLeft() {
		if _, err := r.deleteOwnSecret(ctx, s); err != nil {
			return err
		}
	}
	return r.write(ctx, s, expired{})
}

// withdraw deletes the Secret of a valid key. It records the Secret as deleted, too, if it is already gone or was replaced
// by a foreign one.
func (r *Reconciler) withdraw(ctx context.Context, s *scope) error {
	deleted, err := r.deleteOwnSecret(ctx, s)
	if err != nil {
		return err
	}
	return r.write(ctx, s, withdrawn{deleted})
}
