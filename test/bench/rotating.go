package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// rotatingConcurrency is the number of rotations that are requested at the same time.
const rotatingConcurrency = 16

// benchRotating measures how many rotations a second the operator does on request, beside a floor that watches, reads once and writes three times.
func benchRotating(ctx context.Context, keys, rounds int) error {
	fmt.Printf("\n%d rotations on request per run, %d requested at once, median of %d rounds; both on one control plane in turns\n\n",
		keys, rotatingConcurrency, rounds)
	fmt.Println("| rotated by | rotations/s | of the floor | p50 | p99 |")
	fmt.Println("|---|---|---|---|---|")
	var floors, operators []result
	for round := range rounds {
		floor, operator, err := rotatingRound(ctx, keys, round%2 == 1)
		if err != nil {
			return fmt.Errorf("rotating: %w", err)
		}
		floors, operators = append(floors, floor), append(operators, operator)
	}
	floor, operator := median(floors), median(operators)
	for _, line := range []struct {
		name string
		r    result
	}{{"a watch, one read, three writes and nothing else", floor}, {"apikey-operator", operator}} {
		fmt.Printf("| %s | %.0f | %.2f | %s | %s |\n", line.name, line.r.rate, line.r.rate/floor.rate,
			line.r.p50.Round(100*time.Microsecond), line.r.p99.Round(100*time.Microsecond))
	}
	fmt.Println("\nAPI requests per rotation, as the API server counts them, without the writes of the annotation:")
	fmt.Println()
	for _, line := range operator.requests {
		fmt.Println("- " + line)
	}
	return nil
}

// rotatingRound issues keys in two namespaces, and rotates those of one by the floor and those of the other by the operator.
func rotatingRound(ctx context.Context, keys int, operatorFirst bool) (floored, operated result, err error) {
	plane, err := install(ctx)
	if err != nil {
		return floored, operated, err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	forFloor, err := issuedIn(ctx, plane, "floor", keys)
	if err != nil {
		return floored, operated, err
	}
	forOperator, err := issuedIn(ctx, plane, "operator", keys)
	if err != nil {
		return floored, operated, err
	}
	byFloor := func() (err error) {
		floored, err = rotateByFloor(ctx, plane, forFloor, keys)
		return err
	}
	byOperator := func() (err error) {
		operated, err = rotateByOperator(ctx, plane, forOperator, keys)
		return err
	}
	// Alternate the order, so that changes on the machine affect both.
	steps := []func() error{byFloor, byOperator}
	if operatorFirst {
		steps = []func() error{byOperator, byFloor}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return floored, operated, err
		}
	}
	return floored, operated, nil
}

// issuedIn creates a namespace with issued keys. No operator runs when it returns.
func issuedIn(ctx context.Context, plane *controlplane.ControlPlane, namespace string, keys int) (_ *creator, err error) {
	creator, err := newCreator(ctx, plane, namespace)
	if err != nil {
		return nil, err
	}
	operator, err := plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return nil, err
	}
	_, err = creator.run(ctx, workers, keys)
	return creator, errors.Join(err, operator.Stop())
}

func rotateByFloor(ctx context.Context, plane *controlplane.ControlPlane, creator *creator, keys int) (result, error) {
	floor, err := startFloor(ctx, plane, creator.namespace, rotating)
	if err != nil {
		return result{}, err
	}
	running, cancel := whileRuns(ctx, floor)
	defer cancel()
	r, err := creator.rotate(running, rotatingConcurrency, keys)
	return r, errors.Join(err, floor.Stop())
}

func rotateByOperator(ctx context.Context, plane *controlplane.ControlPlane, creator *creator, keys int) (_ result, err error) {
	operator, err := plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	before, err := requestCounts(ctx, plane)
	if err != nil {
		return result{}, err
	}
	r, err := creator.rotate(ctx, rotatingConcurrency, keys)
	if err != nil {
		return result{}, err
	}
	after, err := requestCounts(ctx, plane)
	r.requests = perKey(before, after, keys)
	return r, err
}
