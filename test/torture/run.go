package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

// promises are the tolerances of a run; docs/torture.md gives the reasons.
var promises = model.Promises{Watch: 5 * time.Second, MaxStaleness: 15 * time.Second, ClockTolerance: 5 * time.Minute}

const (
	keepAnnotation = "apikey-operator.io/keep"
	// beatName is the name of the objects that are changed every second, so that the API server is not silent.
	beatName      = "beat"
	beatInterval  = time.Second
	retryInterval = 200 * time.Millisecond
	callTimeout   = 10 * time.Second
	// A tick that is later than this shows that the machine did not run this program.
	tickInterval = 100 * time.Millisecond
	stallAfter   = 500 * time.Millisecond
)

// now returns the time of the wall clock, which deadlines refer to, without a monotonic reading.
func now() time.Time { return time.Now().Round(0) }

// pause waits. It returns false if the context ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// run is one run of the test, on a control plane of its own.
type run struct {
	seed   uint64
	defect plantedDefect
	folder string
	plane  *controlplane.ControlPlane
	admin  client.WithWatch
	caller string // the token of a service account that may introspect

	processes  map[string]*supervised
	addresses  map[string]controlplane.VerifierAddresses
	askers     map[string]*asker
	files      []*os.File
	statuses   *os.File
	background sync.WaitGroup
	lanes      map[string]chan func()
	working    sync.WaitGroup

	mu      sync.Mutex
	history model.History
	seen    map[string]model.Key // the last of each UID
	texts   map[string]string    // tokens by digest
	digests []string             // of tokens whose digest was seen in a status
	uids    map[string]string    // of the keys that were created last, by namespace/name
	clock   io.Writer
	errs    []error
	cycles  []time.Time // when a new key was seen to open at all verifiers
}

// until tries something until it succeeds.
func (r *run) until(ctx context.Context, what func(context.Context) error) error {
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := what(call)
		cancel()
		if err == nil {
			return nil
		}
		if !pause(ctx, retryInterval) {
			return err
		}
	}
}

// operate repeats an operation until it is done, and records it.
func (r *run) operate(ctx context.Context, o model.Operation, what func(context.Context) error) {
	o.Asked = now()
	r.mu.Lock()
	r.history = append(r.history, o)
	index := len(r.history) - 1
	r.mu.Unlock()
	if err := r.until(ctx, what); err != nil {
		r.fail(fmt.Errorf("%s %s: %w", o.Kind, o.Subject, err))
		return
	}
	o.Answered = now()
	r.mu.Lock()
	defer r.mu.Unlock()
	o.UID = r.operationUID(o)
	r.history[index] = o
}

func (r *run) operationUID(o model.Operation) string {
	if o.UID == "" && o.Kind == plan.Create {
		return r.uids[o.Subject]
	}
	return o.UID
}

// torture does what the plan says for a while, and returns once all faults have ended.
func (r *run) torture(ctx context.Context, duration time.Duration) {
	steps := plan.New(r.seed)
	for end := now().Add(duration); now().Before(end) && ctx.Err() == nil && len(r.failures()) == 0; {
		step := steps.Next()
		if pause(ctx, step.After) {
			r.dispatch(ctx, step)
		}
	}
	for _, lane := range r.lanes {
		close(lane)
	}
	r.working.Wait()
}

func (r *run) failures() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

// do runs a function after those that were given to the same lane before.
func (r *run) do(lane string, what func()) {
	queue := r.lanes[lane]
	if queue == nil {
		queue = make(chan func(), 10_000)
		r.lanes[lane] = queue
		r.working.Go(func() {
			for what := range queue {
				what()
			}
		})
	}
	queue <- what
}

// dispatch hands a step to the lane of what it is about.
func (r *run) dispatch(ctx context.Context, step plan.Step) {
	switch step.Kind {
	case plan.Create:
		r.do(step.Subject, func() { r.create(ctx, step) })
	case plan.Delete:
		r.do(step.Subject, func() { r.delete(ctx, step.Subject) })
	case plan.Rotate, plan.Retire:
		r.do(step.Subject, func() { r.request(ctx, step) })
	case plan.Suspend, plan.Resume:
		r.do(step.Subject, func() { r.turn(ctx, step) })
	case plan.Annotate, plan.Keep:
		r.do(step.Subject, func() { r.mark(ctx, step) })
	case plan.Edit:
		r.do("setting/"+step.Subject, func() {
			r.operate(ctx, model.Operation{Kind: plan.Edit, Subject: step.Subject, Value: &step.Setting},
				func(ctx context.Context) error { return r.set(ctx, step.Subject, step.Setting) })
		})
	case plan.Quota:
		r.do("quota/"+step.Subject, func() { r.fillQuota(ctx, step) })
	case plan.Plant:
		r.do(step.Subject, func() {
			planted := make(chan struct{})
			r.working.Go(func() { r.plantSecret(ctx, step, func() { close(planted) }) })
			<-planted
		})
	case plan.Lease:
		r.do("lease", func() { r.stealLease(ctx, step) })
	case plan.Jump:
		r.do("clock", func() { r.jump(ctx, step) })
	case plan.Pause, plan.Kill:
		lane := step.Subject
		if _, isPlane := components[lane]; isPlane {
			lane = "plane"
		}
		r.do(lane, func() { r.disturb(ctx, step) })
	}
}
