// Command torture changes ApiKeys and disturbs everything that they depend on, at random, and judges every answer of every verifier.
// `make torture` runs it; docs/torture.md explains it.
//
// Package plan draws the steps from a seed. This package does them on a control plane of its own, with two operators and two verifiers, and
// records a history. It must not decide what is right: package model does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

func main() {
	duration := flag.Duration("duration", time.Minute, "how long the steps take")
	seed := flag.Uint64("seed", 0, "the seed of the steps and their order; 0 draws one")
	plant := flag.String("plant", "", "a defect to build in, which the test must find; see defects.go")
	logs := flag.String("logs", "", "a folder to keep all logs in; without it they are removed")
	kubeconfig := flag.String("operate", "", "run only an operator with a clock that can jump, with this kubeconfig")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defect := plantedDefect(*plant)
	err := defect.validate()
	switch {
	case err != nil:
	case *kubeconfig != "":
		err = operate(ctx, *kubeconfig, defect)
	default:
		for *seed == 0 {
			*seed = rand.Uint64() //nolint:gosec // chance, not secrecy
		}
		err = torture(ctx, *seed, *duration, defect, *logs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func torture(ctx context.Context, seed uint64, duration time.Duration, defect plantedDefect, logs string) (err error) {
	fmt.Printf("torture: SEED=%d DURATION=%s PLANT=%s\n", seed, duration, defect)
	folder := logs
	if folder == "" {
		if folder, err = os.MkdirTemp("", "apikey-torture-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	} else if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	r := &run{
		seed: seed, defect: defect, folder: folder,
		processes: map[string]*supervised{}, addresses: map[string]controlplane.VerifierAddresses{}, askers: map[string]*asker{},
		lanes: map[string]chan func(){}, seen: map[string]model.Key{}, texts: map[string]string{}, uids: map[string]string{},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		err = errors.Join(err, r.stop())
		r.background.Wait()
	}()
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.everything(ctx, duration); err != nil {
		return err
	}
	return r.verdict(duration)
}

// everything does the steps and sends requests, and then waits for everything to settle.
func (r *run) everything(ctx context.Context, duration time.Duration) error {
	r.background.Go(func() { r.beat(ctx) })
	r.background.Go(func() { r.watchMachine(ctx) })
	cycling, stopCycling := context.WithTimeout(ctx, duration)
	defer stopCycling()
	r.working.Go(func() { r.cycle(ctx, cycling.Done()) })
	asking, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	for i, verifier := range plan.Verifiers {
		for j, protocol := range []string{model.ForwardAuth, model.ExtAuthz, model.TokenReview, model.Introspection} {
			random := rand.New(rand.NewPCG(r.seed, uint64(1+4*i+j))) //nolint:gosec // chance that can be repeated
			r.background.Go(func() { r.askers[verifier].keepAsking(asking, protocol, random) })
		}
	}
	r.torture(ctx, duration)
	if err := errors.Join(append(r.failures(), ctx.Err())...); err != nil {
		return fmt.Errorf("the test itself failed (SEED=%d): %w", r.seed, err)
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	stopAsking()
	return r.findLeaks(ctx)
}

// verdict judges the history, and prints the figures and what is wrong.
func (r *run) verdict(duration time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	began := now()
	violations := model.Judge(r.history, promises)
	r.report(os.Stdout, duration, now().Sub(began))
	r.tell(violations)
	if r.defect == noDefect {
		if len(violations) > 0 {
			return fmt.Errorf("%d violations; `make torture SEED=%d DURATION=%s` repeats the order of the steps", len(violations), r.seed, duration)
		}
		fmt.Println("clean")
		return nil
	}
	found := 0
	for _, v := range violations {
		if v.Rule == foundBy[r.defect] {
			found++
		}
	}
	if found == 0 {
		return fmt.Errorf("the planted defect %s was not found (SEED=%d)", r.defect, r.seed)
	}
	fmt.Printf("the planted defect %s was found %d times\n", r.defect, found)
	return nil
}

// tell explains the first violations, one for each rule and subject, and lists some of the others.
func (r *run) tell(violations []model.Violation) {
	const explained, named = 3, 50
	type about struct{ rule, subject string }
	told := map[about]bool{}
	for i, v := range violations {
		switch this := (about{v.Rule, v.Subject}); {
		case len(told) < explained && !told[this]:
			told[this] = true
			r.explain(os.Stdout, v)
		case i < named:
			fmt.Println("ALSO", v)
		}
	}
}
