package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

const worstFleet = 2_000

// benchWorst measures how much memory the operator and the verifier use for keys that are as large as the schema allows: processes that run
// while the keys are created, and processes that start afterwards.
func benchWorst(ctx context.Context) (err error) {
	plane, err := install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	creator, err := newCreator(ctx, plane, "worst")
	if err != nil {
		return err
	}
	creator.shape = func(number int, key *v1alpha1.ApiKey) { build.Worst(number)(key) }

	before, err := startBoth(ctx, plane)
	if err != nil {
		return err
	}
	empty, err := before.memory()
	if err != nil {
		return errors.Join(err, before.stop())
	}
	if _, err := creator.run(ctx, workers, worstFleet); err != nil {
		return errors.Join(err, before.stop())
	}
	grown, err := before.memory()
	if err := errors.Join(err, before.stop()); err != nil {
		return err
	}

	after, err := startBoth(ctx, plane)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, after.stop()) }()
	if _, err := waitForReconciles(ctx, plane, after.operator, worstFleet); err != nil {
		return err
	}
	restarted, err := after.memory()
	if err != nil {
		return err
	}
	fmt.Printf("\nResident memory, current and peak, with %d different keys that are as large as the schema allows\n\n", worstFleet)
	fmt.Println("| | without keys | after issuing all keys | after a restart |")
	fmt.Println("|---|---|---|---|")
	fmt.Printf("| apikey-verifier | %s | %s | %s |\n", empty.verifier, grown.verifier, restarted.verifier)
	fmt.Printf("| apikey-operator | %s | %s | %s |\n", empty.operator, grown.operator, restarted.operator)
	return nil
}

type both struct {
	operator *controlplane.Operator
	verifier *controlplane.Verifier
}

func startBoth(ctx context.Context, plane *controlplane.ControlPlane) (both, error) {
	operator, err := plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return both{}, err
	}
	verifier, err := startVerifier(ctx, plane)
	if err != nil {
		return both{}, errors.Join(err, operator.Stop())
	}
	return both{operator, verifier}, nil
}

func (b both) stop() error { return errors.Join(b.operator.Stop(), b.verifier.Stop()) }

type usage struct{ operator, verifier mebibytes }

type mebibytes struct{ now, peak int64 }

// String implements fmt.Stringer.
func (m mebibytes) String() string { return fmt.Sprintf("%d MiB, %d MiB", m.now>>20, m.peak>>20) }

func (b both) memory() (u usage, err error) {
	if u.operator.now, u.operator.peak, err = b.operator.Memory(); err != nil {
		return u, err
	}
	u.verifier.now, u.verifier.peak, err = b.verifier.Memory()
	return u, err
}
