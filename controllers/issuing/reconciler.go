// Package issuing turns an ApiKey into a token, and withdraws the token's Secret in time; it is the only writer of ApiKey status
// and of Secrets, and it never lists, watches or caches a Secret.
package issuing

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/controllers/rulebook"
	"github.com/apikey-operator/apikey-operator/controllers/timeline"
	"github.com/apikey-operator/apikey-operator/internal/clockskew"
	"github.com/apikey-operator/apikey-operator/internal/policy"
)

const (
	// A pass outlives the manager's stop by this much at most, so that a key is not left half issued by a rollout. It
	// must be shorter than the manager's grace period.
	passTimeout = 20 * time.Second

	// Another writer was faster, and the cache has not seen it yet: look again soon.
	staleDelay = 250 * time.Millisecond

	// While nothing may be decided for the clock's sake, look at it this often.
	skewDelay = time.Minute

	// While keys can't be judged, look at them this often; the end of that is told.
	unreadDelay = time.Minute

	// Nobody tells when a foreign Secret has gone, since Secrets are not watched. The wait grows with the conflict's age.
	minConflictDelay = time.Second
	maxConflictDelay = time.Minute

	// The clock may be set while a pass waits for an answer. What was judged by a moment this far away is judged anew.
	maxJump = time.Minute

	// A timer that was set by a wrong clock must not be trusted for long; a look that finds nothing due costs no request.
	maxWait = 10 * time.Minute

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
	key *v1alpha1.ApiKey
	now time.Time
	// verdict is what roles and policies say; Unjudged where that is not asked, or can't be known.
	verdict policy.Verdict
	// unread says that the key waits for the rules to be read.
	unread bool
	// waiting says that roles and policies do not allow the key, or were not asked; held, that it waits for its turn
	// to be delivered, and costs nothing.
	waiting, held bool
	// ask says that the API server must be asked whether it takes the Secret, before a token is minted; turn, that the key does so for
	// all that wait in its namespace; round is that of the namespace's gate.
	ask, turn bool
	round     uint64
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
	if !key.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	s := &scope{key: key, now: r.Clock.Now().UTC().Truncate(time.Second)}

	err := r.step(ctx, s)
	switch {
	case errors.Is(err, errStale) || apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: staleDelay}, nil
	case apierrors.IsNotFound(err):
		// Deleted under our hands, or asked of an API server that does not serve the kind yet. The cache will tell.
		return ctrl.Result{RequeueAfter: time.Second}, nil
	case err != nil:
		return ctrl.Result{Priority: priority(s.key)}, err
	}
	result, err := r.next(s)
	result.Priority = priority(s.key)
	return result, err
}

// step does the one thing that is due.
func (r *Reconciler) step(ctx context.Context, s *scope) error {
	due, err := r.due(s)
	if err != nil {
		// The schema refuses such a spec: trying again can't help.
		return reconcile.TerminalError(err)
	}
	if !timeline.Expired(s.key) && !due.expiry {
		err := r.judge(ctx, s)
		if errors.Is(err, rulebook.ErrUnread) {
			return r.unread(ctx, s)
		}
		if err != nil {
			return err
		}
	}
	unissued := s.key.Status.IssuedAt == nil && !timeline.Expired(s.key)
	s.waiting = unissued && s.verdict.Outcome != policy.Allowed
	s.held = unissued && !s.waiting && !r.admit(s)
	// issuedAt and a deadline are written once and for ever, and a token that was taken back does not come again. But that a key
	// must wait can be told by any clock.
	writesTime := unissued && !s.held && (!s.waiting || s.key.Status.Hash != "")
	if due.needsClock || writesTime {
		skew, err := r.checkClock(ctx, s)
		if err != nil {
			return err
		}
		if skew != 0 {
			return r.write(ctx, s, finding{skew: skew})
		}
	}
	return r.do(ctx, s, due)
}

// checkClock returns a skew that is beyond tolerance, or 0.
func (r *Reconciler) checkClock(ctx context.Context, s *scope) (time.Duration, error) {
	skew, err := r.Skew(ctx)
	switch {
	case err != nil:
		return 0, err
	case skew.Abs() > clockskew.Tolerance:
		return skew, nil
	case r.Clock.Now().Sub(s.now).Abs() > maxJump:
		return 0, errStale
	}
	return 0, nil
}

// do is the choice of the one thing.
func (r *Reconciler) do(ctx context.Context, s *scope, due due) error {
	switch {
	case timeline.Expired(s.key):
		return r.write(ctx, s, finding{})
	case due.expiry:
		return r.expire(ctx, s)
	case s.waiting:
		return r.refuse(ctx, s)
	case s.held:
		return r.write(ctx, s, finding{})
	case s.key.Status.IssuedAt == nil:
		return r.issue(ctx, s)
	case due.withdrawal:
		return r.withdraw(ctx, s)
	default:
		return r.write(ctx, s, finding{})
	}
}

// due is what the time has come for. needsClock says that it, or a time that will be written, hangs on a right clock.
type due struct {
	expiry, withdrawal, needsClock bool
}

func (r *Reconciler) due(s *scope) (due, error) {
	var d due
	deadline, err := timeline.Deadline(s.key, s.now)
	if err != nil {
		return d, err
	}
	withdrawAt, withdraws, err := timeline.WithdrawAt(s.key)
	if err != nil {
		return d, err
	}
	collectAt, collects, err := timeline.CollectAt(s.key, r.TTLAfterExpired)
	if err != nil {
		return d, err
	}
	d.expiry = deadline.Passed(s.now) && !timeline.Expired(s.key)
	d.withdrawal = withdraws && !s.now.Before(withdrawAt)
	d.needsClock = d.expiry || d.withdrawal ||
		collects && !s.now.Before(collectAt) || // done by another controller, but told here
		hasCondition(s.key, v1alpha1.ConditionClockSkewed)
	return d, nil
}

// next says when the key must be looked at again.
func (r *Reconciler) next(s *scope) (ctrl.Result, error) {
	if hasCondition(s.key, v1alpha1.ConditionClockSkewed) {
		return ctrl.Result{RequeueAfter: skewDelay}, nil
	}
	if s.unread {
		return ctrl.Result{RequeueAfter: unreadDelay}, nil
	}
	if since, conflict := conflictSince(s.key); conflict {
		return ctrl.Result{RequeueAfter: min(max(s.now.Sub(since), minConflictDelay), maxConflictDelay)}, nil
	}
	moments, err := r.moments(s)
	if err != nil {
		return ctrl.Result{}, reconcile.TerminalError(err)
	}
	var wake time.Time
	for _, moment := range moments {
		if moment.After(s.now) && (wake.IsZero() || moment.Before(wake)) {
			wake = moment
		}
	}
	switch {
	case !wake.IsZero():
	case refusedDelivery(s.key):
		// It is woken for its turn; a look in memory now and then makes sure that it is never forgotten.
		return ctrl.Result{RequeueAfter: maxWait}, nil
	default:
		return ctrl.Result{}, nil
	}
	// Counted from the clock itself and not from the pass's truncated moment, or the next pass would be late by
	// what was cut off.
	return ctrl.Result{RequeueAfter: max(min(wake.Sub(r.Clock.Now()), maxWait), time.Millisecond)}, nil
}

// moments are those at which the status of a settled key changes by the passing of time alone.
func (r *Reconciler) moments(s *scope) ([]time.Time, error) {
	var moments []time.Time
	if collectAt, ok, err := timeline.CollectAt(s.key, r.TTLAfterExpired); err != nil {
		return nil, err
	} else if ok {
		moments = append(moments, collectAt)
	}
	if timeline.Expired(s.key) {
		return moments, nil
	}
	if waits(readyReason(s.key)) || refusedDelivery(s.key) {
		return waitingMoments(s)
	}
	if withdrawAt, ok, err := timeline.WithdrawAt(s.key); err != nil {
		return nil, err
	} else if ok {
		moments = append(moments, withdrawAt)
	}
	deadline, err := timeline.Deadline(s.key, s.now)
	if err != nil {
		return nil, err
	}
	if at, ok := deadline.Time(); ok {
		moments = append(moments, at)
	}
	if warnFrom, ok := deadline.WarnFrom(issuedAt(s)); ok {
		moments = append(moments, warnFrom)
	}
	return moments, nil
}

// waitingMoments are those of a key that waits for a role, a policy or the delivery of its Secret: a deadline that is fixed already, and
// the moment from which its life is short enough. All else is told by an event, or is a turn.
func waitingMoments(s *scope) ([]time.Time, error) {
	var moments []time.Time
	if s.verdict.Wait > 0 {
		moments = append(moments, s.now.Add(s.verdict.Wait))
	}
	if s.key.Status.ExpiresAt == nil && s.key.Spec.Expiry.At == "" {
		return moments, nil // its life has not begun
	}
	deadline, err := timeline.Deadline(s.key, s.now)
	if err != nil {
		return nil, err
	}
	if at, ok := deadline.Time(); ok {
		moments = append(moments, at)
	}
	return moments, nil
}

// expire ends a key whose deadline has passed: first its Secret, if that is still its own, then the status. It does so too
// for a key that was never confirmed, and for one that never had a token.
func (r *Reconciler) expire(ctx context.Context, s *scope) error {
	// A digest that was taken back may have left a Secret.
	takingBack := s.key.Status.Hash == "" && s.key.Status.SecretName != ""
	if takingBack || s.key.Status.Hash != "" && s.key.Status.SecretDeletedAt == nil {
		if _, err := r.deleteOwnSecret(ctx, s); err != nil {
			return err
		}
	}
	return r.write(ctx, s, finding{reason: v1alpha1.ReasonExpired, message: expiredMessage(s)})
}

// withdraw deletes the Secret of a key that lives on. A Secret that is gone already, or was replaced by another's, counts
// as withdrawn.
func (r *Reconciler) withdraw(ctx context.Context, s *scope) error {
	deleted, err := r.deleteOwnSecret(ctx, s)
	if err != nil {
		return err
	}
	return r.write(ctx, s, finding{secretGone: true, secretWithdrawn: deleted})
}

func expiredMessage(s *scope) string {
	message := "the key expired at its deadline"
	if s.key.Status.Hash == "" {
		message = "the key's deadline had passed before a token could be issued, so there is none"
	}
	if keeper := timeline.KeptBy(s.key); keeper != "" {
		return fmt.Sprintf("%s; this object is kept, since %s holds it, until it is deleted there", message, keeper)
	}
	return message + "; for a new token, create another ApiKey"
}
