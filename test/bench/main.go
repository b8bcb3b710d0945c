// Command bench measures how fast the operator issues and rotates keys and the verifier checks tokens, compared with floors: programs that do only
// what can't be avoided. It also measures the page of kubectl apikey ui with many keys. It prints the tables of docs/performance.md. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// workers is the operator's default concurrency. The floor uses the same.
const workers = 16

func main() {
	keys := flag.Int("keys", 2000, "number of keys in each timed run")
	fleet := flag.Int("fleet", 10000, "number of keys for measuring memory and restarts")
	rotations := flag.Int("rotations", 300, "number of keys that are rotated in each timed run")
	rounds := flag.Int("rounds", 3, "number of timed runs of each kind; the median is printed")
	during := flag.Duration("during", 5*time.Second, "duration of each timed run of the verifier")
	only := flag.String("only", "", "run only this benchmark: issuing, rotating, verifying or worst; or usage, which does not run without this")
	usage := usageLoad{}
	flag.IntVar(&usage.keys, "used-keys", 10000, "number of keys that are used while their use is recorded")
	flag.IntVar(&usage.perSecond, "uses", 2000, "number of requests a second that use these keys")
	flag.DurationVar(&usage.during, "used-for", 5*time.Minute, "duration of each of the two runs that use these keys")
	emptyHTTP := flag.String("empty-http", "", "address for HTTP; if set, serve only the verifier's floor and measure nothing")
	emptyGRPC := flag.String("empty-grpc", "", "address for gRPC of the verifier's floor")
	flag.Parse()
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := func() error {
		if *emptyHTTP != "" {
			return emptyServers(ctx, *emptyHTTP, *emptyGRPC)
		}
		all := *only == ""
		if all || *only == "issuing" {
			if err := benchIssuing(ctx, *keys, *fleet, *rounds); err != nil {
				return err
			}
		}
		if all || *only == "rotating" {
			if err := benchRotating(ctx, *rotations, *rounds); err != nil {
				return err
			}
		}
		if all || *only == "verifying" {
			if err := benchVerifying(ctx, *rounds, *during); err != nil {
				return err
			}
		}
		if all || *only == "listing" {
			if err := benchListing(ctx, *rounds); err != nil {
				return err
			}
		}
		if all || *only == "worst" {
			if err := benchWorst(ctx); err != nil {
				return err
			}
		}
		if *only == "usage" { // its load takes long
			return benchUsage(ctx, usage)
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func benchIssuing(ctx context.Context, keys, fleet, rounds int) error {
	fmt.Printf("%s, %d cores; %d keys per run, median of %d rounds, each run on a new control plane on the same machine\n\n",
		runtime.Version(), runtime.NumCPU(), keys, rounds)
	fmt.Println("| concurrent creates | issuer | keys/s | of the floor | p50 | p99 |")
	fmt.Println("|---|---|---|---|---|---|")
	var requests []string
	for _, concurrency := range []int{1, 16} {
		runs := map[string][]result{}
		for round := range rounds {
			// Alternate the kinds, so that changes on the machine affect both.
			kinds := []string{"floor", "operator"}
			if round%2 == 1 {
				slices.Reverse(kinds)
			}
			for _, kind := range kinds {
				r, err := timedRun(ctx, kind, concurrency, keys)
				if err != nil {
					return fmt.Errorf("%s at %d: %w", kind, concurrency, err)
				}
				runs[kind] = append(runs[kind], r)
			}
		}
		floor, operator := median(runs["floor"]), median(runs["operator"])
		for _, line := range []struct {
			name string
			r    result
		}{{"three writes and nothing else", floor}, {"apikey-operator", operator}} {
			fmt.Printf("| %d | %s | %.0f | %.2f | %s | %s |\n", concurrency, line.name, line.r.rate, line.r.rate/floor.rate,
				line.r.p50.Round(100*time.Microsecond), line.r.p99.Round(100*time.Microsecond))
		}
		requests = operator.requests
	}
	fmt.Println("\nAPI requests per key, as the API server counts them, without the creates of the ApiKeys:")
	fmt.Println()
	for _, line := range requests {
		fmt.Println("- " + line)
	}
	return fleetRun(ctx, fleet)
}

// timedRun creates keys on a new control plane and measures the time until they are Ready.
func timedRun(ctx context.Context, kind string, concurrency, keys int) (_ result, err error) {
	plane, err := install(ctx)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	creator, err := newCreator(ctx, plane, "bench")
	if err != nil {
		return result{}, err
	}

	if kind == "operator" {
		operator, err := plane.StartOperator(ctx, io.Discard)
		if err != nil {
			return result{}, err
		}
		defer func() { err = errors.Join(err, operator.Stop()) }()
		before, err := requestCounts(ctx, plane)
		if err != nil {
			return result{}, err
		}
		r, err := creator.run(ctx, concurrency, keys, nil)
		if err != nil {
			return result{}, err
		}
		cpu, err := cpuTime(operator.Pid())
		if err != nil {
			return result{}, err
		}
		after, err := requestCounts(ctx, plane)
		r.requests = append(perKey(before, after, keys),
			fmt.Sprintf("processor time of the operator itself: %.1f ms", float64(cpu.Microseconds())/1000/float64(keys)))
		return r, err
	}

	floor, err := newFloor(ctx, plane, workers, (*floor).issue)
	if err != nil {
		return result{}, err
	}
	defer floor.stop()
	r, err := creator.run(ctx, concurrency, keys, floor.take)
	return r, errors.Join(err, floor.err())
}

// fleetRun measures the memory that issued keys cost, and the writes of an operator that restarts.
func fleetRun(ctx context.Context, keys int) (err error) {
	plane, err := install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	creator, err := newCreator(ctx, plane, "fleet")
	if err != nil {
		return err
	}
	operator, err := plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return err
	}
	r, err := creator.run(ctx, 16, keys, nil)
	if err != nil {
		return errors.Join(err, operator.Stop())
	}
	grown, err := memory(operator.Process)
	if err := errors.Join(err, operator.Stop()); err != nil {
		return err
	}

	before, err := requestCounts(ctx, plane)
	if err != nil {
		return err
	}
	operator, err = plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	took, err := waitForReconciles(ctx, plane, operator, keys)
	if err != nil {
		return err
	}
	restarted, err := memory(operator.Process)
	if err != nil {
		return err
	}
	after, err := requestCounts(ctx, plane)
	if err != nil {
		return err
	}
	fmt.Printf("\nWith %d keys: issued at %.0f keys/s; resident memory %d MiB after issuing them, %d MiB after a restart;\n"+
		"the restarted operator had reconciled all of them %.1f s after it was ready, with %d writes to ApiKeys and Secrets.\n",
		keys, r.rate, grown>>20, restarted>>20, took.Seconds(), writes(before, after))
	return nil
}

func install(ctx context.Context) (*controlplane.ControlPlane, error) {
	plane, err := controlplane.Start(ctx, controlplane.Options{})
	if err != nil {
		return nil, err
	}
	if err := plane.Install(ctx); err != nil {
		return nil, errors.Join(err, plane.Stop())
	}
	return plane, nil
}
