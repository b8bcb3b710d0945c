package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// worse is the ratio from which a change is told as a loss.
const worse = 1.10

// benchCompare compares the binaries in bin/ with those of another revision in the folder base. Each round measures both, in turns. It
// returns an error if the median of a measure is worse by a tenth.
func benchCompare(ctx context.Context, base string, keys, rounds int, during time.Duration) (err error) {
	plane, seeder, err := seededPlane(ctx, smallFleet)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	sides := [2]string{base, filepath.Join(plane.Root, "bin")}
	measured := [2][]sample{}
	for round := range rounds {
		for i := range sides {
			side := (i + round) % 2 // the first of a round is another one each time
			plane.Bin = sides[side]
			s, err := measureSide(ctx, plane, seeder.tokens, fmt.Sprintf("compare-%d-%d", round, side), keys, during)
			if err != nil {
				return fmt.Errorf("%s: %w", sides[side], err)
			}
			measured[side] = append(measured[side], s)
		}
	}
	fmt.Printf("\nThe base beside this revision; processor times, median of %d rounds in turns\n\n", rounds)
	fmt.Println("| measure | base | now | now, of the base | single rounds |")
	fmt.Println("|---|---|---|---|---|")
	lost := false
	for _, m := range []struct {
		name, unit string
		of         func(sample) float64
	}{
		{"a request over ext_authz", "µs", func(s sample) float64 { return s.extAuthz }},
		{"a request over forward-auth", "µs", func(s sample) float64 { return s.forwardAuth }},
		{"a verifier's start, a key", "µs", func(s sample) float64 { return s.start }},
		{"a verifier's resident memory", "MiB", func(s sample) float64 { return s.verifierMemory }},
		{"an issue", "µs", func(s sample) float64 { return s.issue }},
		{"an operator's resident memory", "MiB", func(s sample) float64 { return s.operatorMemory }},
	} {
		var before, now, ratios []float64
		for round := range rounds {
			b, n := m.of(measured[0][round]), m.of(measured[1][round])
			before, now, ratios = append(before, b), append(now, n), append(ratios, n/b)
		}
		told := ""
		if middle(ratios) >= worse {
			told, lost = ": **worse**", true
		}
		fmt.Printf("| %s | %.1f %s | %.1f %s | %.2f%s | %s |\n", m.name, middle(before), m.unit, middle(now), m.unit, middle(ratios), told, spread(ratios, "%.2f"))
	}
	if lost {
		return fmt.Errorf("this revision is worse than the base by %.0f %% or more", 100*(worse-1))
	}
	return nil
}

// sample is what a round measures of one revision: processor times in microseconds, and memory in MiB.
type sample struct {
	extAuthz, forwardAuth, start, issue float64
	verifierMemory, operatorMemory      float64
}

func measureSide(
	ctx context.Context, plane *controlplane.ControlPlane, tokens []seeded, namespace string, keys int, during time.Duration,
) (s sample, err error) {
	v, err := startVerifier(ctx, plane)
	if err != nil {
		return s, err
	}
	own, err := cpuTime(v.Pid())
	if err != nil {
		return s, errors.Join(err, v.Stop())
	}
	s.start = float64(own.Microseconds()) / smallFleet
	grpc, err := cost(ctx, v.Pid(), tokens, connectGRPC(v.GRPC), during)
	http, httpErr := cost(ctx, v.Pid(), tokens, connectHTTP(v.HTTP), during)
	rss, memoryErr := memory(v.Process)
	if err := errors.Join(err, httpErr, memoryErr, v.Stop()); err != nil {
		return s, err
	}
	s.extAuthz, s.forwardAuth, s.verifierMemory = float64(grpc)/1e3, float64(http)/1e3, float64(rss)/(1<<20)

	creator, err := newCreator(ctx, plane, namespace)
	if err != nil {
		return s, err
	}
	operator, err := plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	before, err := cpuTime(operator.Pid())
	if err != nil {
		return s, err
	}
	if _, err := creator.run(ctx, workers, keys); err != nil {
		return s, err
	}
	after, err := cpuTime(operator.Pid())
	if err != nil {
		return s, err
	}
	rss, err = memory(operator.Process)
	s.issue, s.operatorMemory = float64((after-before).Microseconds())/float64(keys), float64(rss)/(1<<20)
	return s, err
}
