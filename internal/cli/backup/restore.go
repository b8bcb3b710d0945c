package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

const (
	// writers is the number of keys that are written at the same time.
	writers = 8
	// pageSize is the number of keys that one request lists.
	pageSize = 500
	// maxNamed is the number of keys that a message names.
	maxNamed = 20
)

// Restore is a restore of a backup.
type Restore struct {
	// Client writes ApiKeys and their status, and finds and stops operators.
	Client client.Client
	// Keys are the keys of the backup.
	Keys []v1alpha1.ApiKey
	// KeepExisting leaves keys alone that exist with another token or spec. Without it, they end the restore before it changes anything.
	KeepExisting bool
	// Confirm asks whether something may be done, and returns an error if not.
	Confirm func(question string) error
	// Say tells what is done.
	Say func(format string, args ...any)
}

// Result says what a restore did.
type Result struct {
	// Restored keys were created or completed. Present ones had the digest of the backup already. Kept ones were left alone.
	Restored, Present, Kept int
	// Verified keys were read again at the end, and have the digest of the backup.
	Verified int
}

// Run restores the backup. What it has changed besides keys is put back in any case: the admission policies whatever happens, and the operators
// once every key has its status, or if no key was written. Another run continues one that was interrupted.
func (r *Restore) Run(ctx context.Context) (result Result, err error) {
	g, o := &guards{client: r.Client}, &operators{client: r.Client}
	if err := g.remember(ctx); err != nil {
		return result, fmt.Errorf("find the admission policies: %w", err)
	}
	defer func() { err = errors.Join(err, g.putBack(ctx)) }()
	if _, err := o.deployments(ctx); err != nil { // an earlier restore may have stopped some
		return result, fmt.Errorf("find the operators: %w", err)
	}
	if _, err := r.plan(ctx); err != nil {
		return result, errors.Join(err, r.startAgain(ctx, o))
	}
	if err := r.stopOperators(ctx, o); err != nil {
		return result, errors.Join(err, r.startAgain(ctx, o))
	}
	// Again: an operator may have issued keys until it stopped.
	plan, err := r.plan(ctx)
	if err != nil {
		return result, errors.Join(err, r.startAgain(ctx, o))
	}
	result.Present, result.Kept = len(plan.Done), len(plan.Conflicts)
	if err := r.write(ctx, g, plan, &result); err != nil {
		return result, fmt.Errorf("%w\nSTART NO OPERATOR: keys without a status would get new tokens, and the old ones would be invalid.\n"+
			"Fix the cause and run this command again: it continues", err)
	}
	if err := g.putBack(ctx); err != nil {
		return result, errors.Join(err, o.stayStopped())
	}
	if result.Verified, err = r.verify(ctx, plan); err != nil {
		return result, errors.Join(err, o.stayStopped())
	}
	return result, o.start(ctx)
}

// startAgain starts the operators after a failure before any key was written, if the backup is not half restored.
func (r *Restore) startAgain(ctx context.Context, o *operators) error {
	if len(o.stopped) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupPatience)
	defer cancel()
	live, err := r.live(ctx)
	if err != nil {
		return errors.Join(err, o.stayStopped())
	}
	if plan := NewPlan(r.Keys, live); len(plan.Complete) > 0 {
		return fmt.Errorf("keys of an earlier restore still lack their status; %w", o.stayStopped())
	}
	return o.start(ctx)
}

// live returns the keys that exist, of those in the backup.
func (r *Restore) live(ctx context.Context) (map[types.NamespacedName]*v1alpha1.ApiKey, error) {
	wanted := make(map[types.NamespacedName]bool, len(r.Keys))
	for i := range r.Keys {
		wanted[idOf(&r.Keys[i])] = true
	}
	live := map[types.NamespacedName]*v1alpha1.ApiKey{}
	options := &client.ListOptions{Limit: pageSize}
	for {
		page := &v1alpha1.ApiKeyList{}
		if err := r.Client.List(ctx, page, options); err != nil {
			return nil, err
		}
		for i := range page.Items {
			if id := idOf(&page.Items[i]); wanted[id] {
				live[id] = page.Items[i].DeepCopy()
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return live, nil
		}
	}
}

// plan compares the backup with the cluster, and checks that every missing key can be created.
func (r *Restore) plan(ctx context.Context) (*Plan, error) {
	live, err := r.live(ctx)
	if err != nil {
		return nil, err
	}
	plan := NewPlan(r.Keys, live)
	if len(plan.Conflicts) > 0 && !r.KeepExisting {
		return nil, fmt.Errorf("nothing was restored, because %d keys of the backup exist and differ:\n%s\n"+
			"To keep these as they are, add --keep-existing. To get the old tokens back, revoke them first, which ends the new tokens",
			len(plan.Conflicts), list(plan.Conflicts))
	}
	var group errgroup.Group
	group.SetLimit(writers)
	problems := make([]error, len(plan.Create))
	for i, key := range plan.Create {
		group.Go(func() error {
			if err := r.Client.Create(ctx, withoutStatus(key), client.DryRunAll); err != nil {
				problems[i] = fmt.Errorf("%s: %w", idOf(key), err)
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in problems
	if err := firstOf(problems); err != nil {
		return nil, fmt.Errorf("nothing was restored, because these keys can't be created:\n%w", err)
	}
	return plan, nil
}

// firstOf joins the first errors, and counts the rest.
func firstOf(problems []error) error {
	var some []error
	n := 0
	for _, err := range problems {
		if err == nil {
			continue
		}
		if n++; n <= maxNamed {
			some = append(some, err)
		}
	}
	if n > maxNamed {
		some = append(some, fmt.Errorf("and %d more", n-maxNamed))
	}
	return errors.Join(some...)
}

func list(conflicts []Conflict) string {
	var lines []string
	for _, conflict := range conflicts[:min(len(conflicts), maxNamed)] {
		lines = append(lines, "  "+conflict.String())
	}
	if n := len(conflicts) - maxNamed; n > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", n))
	}
	return strings.Join(lines, "\n")
}

// stopOperators returns once it is proven that no operator runs.
func (r *Restore) stopOperators(ctx context.Context, o *operators) error {
	running, err := o.deployments(ctx)
	if err != nil {
		return fmt.Errorf("find the operators: %w", err)
	}
	if len(running) > 0 {
		var names []string
		for _, d := range running {
			names = append(names, d.Namespace+"/"+d.Name)
		}
		question := fmt.Sprintf("No operator may run during a restore. Stop the deployments %s, and start them again afterwards?", strings.Join(names, ", "))
		if err := r.Confirm(question); err != nil {
			return err
		}
		if err := o.stop(ctx, running); err != nil {
			return err
		}
		r.Say("Stopping the operators ...")
	}
	return o.proveStopped(ctx, r.Say)
}

// write creates keys and writes their status.
func (r *Restore) write(ctx context.Context, g *guards, plan *Plan, result *Result) error {
	if !plan.Writes() {
		return nil
	}
	r.Say("Restoring %d keys ...", len(plan.Create)+len(plan.Complete))
	if err := g.lift(ctx); err != nil {
		return err
	}
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for _, key := range plan.Create {
		group.Go(func() error { return r.create(working, key) })
	}
	for _, key := range plan.Complete {
		group.Go(func() error { return r.complete(working, key) })
	}
	if err := group.Wait(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	result.Restored = len(plan.Create) + len(plan.Complete)
	return nil
}

func withoutStatus(key *v1alpha1.ApiKey) *v1alpha1.ApiKey {
	created := portable(key)
	created.Status = v1alpha1.ApiKeyStatus{}
	return created.DeepCopy()
}

func (r *Restore) create(ctx context.Context, key *v1alpha1.ApiKey) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	created := withoutStatus(key)
	if err := r.Client.Create(ctx, created); err != nil {
		return fmt.Errorf("create %s: %w", idOf(key), err)
	}
	if !hasStatus(key) {
		return nil
	}
	return r.writeStatus(ctx, created, key)
}

func (r *Restore) complete(ctx context.Context, key *v1alpha1.ApiKey) error {
	now := &v1alpha1.ApiKey{}
	if err := r.Client.Get(ctx, idOf(key), now); err != nil {
		return fmt.Errorf("read %s: %w", idOf(key), err)
	}
	if now.Status.Hash != "" {
		return fmt.Errorf("%s was issued during the restore: an operator runs", idOf(key))
	}
	// The write of the status has this key's resourceVersion, so it can't reach a key that is created later.
	if !sameSpec(now, key) {
		return fmt.Errorf("%s was created again during the restore, with another spec", idOf(key))
	}
	return r.writeStatus(ctx, now, key)
}

// writeStatus writes the status of the backup to a key. The API server may follow the lifted policy only after a moment.
func (r *Restore) writeStatus(ctx context.Context, to, key *v1alpha1.ApiKey) error {
	to.Status = *key.Status.DeepCopy()
	// The generation is another one, and the operator must see that it has looked at this key.
	to.Status.ObservedGeneration = to.Generation
	patience, cancel := context.WithTimeout(ctx, guardPatience)
	defer cancel()
	var last error
	err := wait.PollUntilContextCancel(patience, retryEvery, true, func(ctx context.Context) (bool, error) {
		last = r.Client.Status().Update(ctx, to.DeepCopy())
		if apierrors.IsForbidden(last) && strings.Contains(last.Error(), "ValidatingAdmissionPolicy") {
			return false, nil
		}
		return true, last
	})
	if err != nil {
		return fmt.Errorf("write the status of %s: %w", idOf(key), errors.Join(err, last))
	}
	return nil
}

// verify reads the keys again, and returns how many have the digest of the backup.
func (r *Restore) verify(ctx context.Context, plan *Plan) (int, error) {
	live, err := r.live(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the keys again: %w", err)
	}
	verified := 0
	var wrong []error
	for _, group := range [][]*v1alpha1.ApiKey{plan.Create, plan.Complete, plan.Done} {
		for _, key := range group {
			now := live[idOf(key)]
			if now == nil || hasStatus(key) && now.Status.Hash != key.Status.Hash {
				wrong = append(wrong, fmt.Errorf("%s is not as in the backup", idOf(key)))
				continue
			}
			verified++
		}
	}
	if len(wrong) > 0 {
		return verified, fmt.Errorf("the restore is not right. Did an operator run meanwhile?\n%w", firstOf(wrong))
	}
	return verified, nil
}
