// Command bench measures how fast the operator issues and rotates keys and the verifier checks tokens, compared with floors: programs that do only
// what can't be avoided. It also measures kubectl apikey and its page with many keys. It prints the tables of docs/performance.md. `make bench` runs it.
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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// workers is the operator's default concurrency. The floor uses the same.
const workers = 16

// settings are what the flags say.
type settings struct {
	keys, fleet, rotations, rounds int
	during                         time.Duration
	largest, replayed              int
	plots                          string
	usage                          usageLoad
}

// onlyAlone are the benchmarks that take so long that they run only if they are asked for.
var onlyAlone = []string{"usage"}

// benchmarks are everything that is measured, in the order in which it runs.
var benchmarks = []struct {
	name string
	run  func(context.Context, settings) error
}{
	{"issuing", func(ctx context.Context, s settings) error { return benchIssuing(ctx, s.keys, s.fleet, s.rounds) }},
	{"rotating", func(ctx context.Context, s settings) error { return benchRotating(ctx, s.rotations, s.rounds) }},
	{"deciding", func(ctx context.Context, s settings) error {
		return benchDeciding(ctx, max(s.largest, s.replayed), s.rounds)
	}},
	{"verifying", func(ctx context.Context, s settings) error { return benchVerifying(ctx, s.largest, s.rounds, s.during) }},
	{"gateways", func(ctx context.Context, s settings) error { return benchGateways(ctx, s.rounds, s.during) }},
	{"growth", func(ctx context.Context, s settings) error {
		return benchGrowth(ctx, s.largest, s.replayed, s.rounds, s.plots)
	}},
	{"listing", func(ctx context.Context, s settings) error { return benchListing(ctx, s.rounds) }},
	{"page", func(ctx context.Context, s settings) error { return benchPage(ctx, s.rounds) }},
	{"worst", func(ctx context.Context, _ settings) error { return benchWorst(ctx) }},
	{"usage", func(ctx context.Context, s settings) error { return benchUsage(ctx, s.usage) }},
}

func main() {
	var s settings
	flag.IntVar(&s.keys, "keys", 2000, "number of keys in each timed run")
	flag.IntVar(&s.fleet, "fleet", 10000, "number of keys for measuring memory and restarts")
	flag.IntVar(&s.rotations, "rotations", 300, "number of keys that are rotated in each timed run")
	flag.IntVar(&s.rounds, "rounds", 5, "number of timed runs of each kind; the median is printed")
	flag.DurationVar(&s.during, "during", 5*time.Second, "duration of each timed run of the verifier")
	flag.IntVar(&s.largest, "largest", goalFleet, "largest number of keys on a real API server")
	flag.IntVar(&s.replayed, "replayed", 1_000_000, "number of keys of the replay that ends the growth table; 0 leaves it out")
	flag.StringVar(&s.plots, "plots", "", "folder for plots of how it grows, as SVG files")
	flag.IntVar(&s.usage.keys, "used-keys", 10000, "number of keys that are used while their use is recorded")
	flag.IntVar(&s.usage.perSecond, "uses", 2000, "number of requests a second that use these keys")
	flag.DurationVar(&s.usage.during, "used-for", 5*time.Minute, "duration of each of the two runs that use these keys")
	only := flag.String("only", "", "run only these benchmarks, separated by commas: "+benchmarkNames()+"; without it, all but "+strings.Join(onlyAlone, ", "))
	base := flag.String("compare", "", "folder with the binaries of another revision; if set, only compare them with those in bin/")
	emptyHTTP := flag.String("empty-http", "", "address for HTTP; if set, serve only the verifier's floor and measure nothing")
	identity := flag.Bool("empty-identity", false, "with -empty-http, answer with the headers of an identity")
	emptyGRPC := flag.String("empty-grpc", "", "address for gRPC of the verifier's floor, or of the bare client")
	bare := flag.String("bare-watch", "", "kubeconfig; if set, only watch ApiKeys as the floor of the verifier's start does")
	floor := flag.String("floor", "", issuing+" or "+rotating+": serve only the operator's floor and measure nothing")
	floorKubeconfig := flag.String("floor-kubeconfig", "", "kubeconfig of the operator's floor")
	floorNamespace := flag.String("floor-namespace", "", "namespace of the operator's floor")
	address := flag.String("replay", "", "address for HTTP; if set, serve only a replay of an API server with many keys")
	pattern := flag.String("replay-pattern", "", "file with the key that the replay copies")
	replayKeys := flag.Int("replay-keys", 0, "number of keys of the replay")
	flag.Parse()
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := func() error {
		switch {
		case *emptyHTTP != "":
			return emptyServers(ctx, *emptyHTTP, *emptyGRPC, *identity)
		case *bare != "":
			return bareWatch(ctx, *bare, *emptyGRPC)
		case *floor != "":
			return serveFloor(ctx, *floor, *floorKubeconfig, *floorNamespace)
		case *address != "":
			return serveReplay(ctx, *address, *pattern, *replayKeys)
		case *base != "":
			return benchCompare(ctx, *base, s.keys/4, s.rounds, s.during)
		}
		return runBenchmarks(ctx, *only, s)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// runBenchmarks runs the named benchmarks, or all but those that run only alone.
func runBenchmarks(ctx context.Context, only string, s settings) error {
	wanted := func(name string) bool { return !slices.Contains(onlyAlone, name) }
	if only != "" {
		names := strings.Split(only, ",")
		for _, name := range names {
			if !strings.Contains(", "+benchmarkNames()+",", ", "+name+",") {
				return fmt.Errorf("-only=%s: there is no benchmark %q, but %s", only, name, benchmarkNames())
			}
		}
		wanted = func(name string) bool { return slices.Contains(names, name) }
	}
	for _, b := range benchmarks {
		if !wanted(b.name) {
			continue
		}
		if err := b.run(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}

func benchmarkNames() string {
	names := make([]string, len(benchmarks))
	for i, b := range benchmarks {
		names[i] = b.name
	}
	return strings.Join(names, ", ")
}

func benchIssuing(ctx context.Context, keys, fleet, rounds int) error {
	fmt.Printf("%s, %d cores; %d keys per run, median of %d rounds, each run on a new control plane on the same machine\n\n",
		runtime.Version(), runtime.NumCPU(), keys, rounds)
	fmt.Println("| concurrent creates | issuer | keys/s | of the floor | goal | p50 | p99 |")
	fmt.Println("|---|---|---|---|---|---|---|")
	var last result
	for _, c := range []struct {
		concurrency int
		goal        float64
	}{{1, 0.92}, {16, 0.95}} {
		concurrency := c.concurrency
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
		ratio := operator.rate / floor.rate
		for _, line := range []struct {
			name, goal string
			r          result
		}{{"a watch, three writes and nothing else", "", floor}, {"apikey-operator", goal(fmt.Sprint(c.goal), ratio >= c.goal), operator}} {
			fmt.Printf("| %d | %s | %.0f | %.2f | %s | %s | %s |\n", concurrency, line.name, line.r.rate, line.r.rate/floor.rate, line.goal,
				line.r.p50.Round(100*time.Microsecond), line.r.p99.Round(100*time.Microsecond))
		}
		last = operator
	}
	fmt.Println("\nAPI requests per key, as the API server counts them, without the creates of the ApiKeys:")
	fmt.Println()
	for _, line := range last.requests {
		fmt.Println("- " + line)
	}
	const most = 1500 * time.Microsecond
	fmt.Printf("\nThe operator's own processor time for a key: %.2f ms; goal %s\n", last.cpu.Seconds()*1000, goal("1.5 ms", last.cpu <= most))
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
		start, err := cpuTime(operator.Pid())
		if err != nil {
			return result{}, err
		}
		r, err := creator.run(ctx, concurrency, keys)
		if err != nil {
			return result{}, err
		}
		end, err := cpuTime(operator.Pid())
		if err != nil {
			return result{}, err
		}
		after, err := requestCounts(ctx, plane)
		r.requests, r.cpu = perKey(before, after, keys), (end-start)/time.Duration(keys)
		return r, err
	}

	floor, err := startFloor(ctx, plane, creator.namespace, issuing)
	if err != nil {
		return result{}, err
	}
	running, cancel := whileRuns(ctx, floor)
	defer cancel()
	r, err := creator.run(running, concurrency, keys)
	return r, errors.Join(err, floor.Stop())
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
	r, err := creator.run(ctx, 16, keys)
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
	const most, soonest = 60, 0.5 // MiB and seconds
	fmt.Printf("\nWith %d keys, issued at %.0f a second:\n\n| measure | value | goal |\n|---|---|---|\n", keys, r.rate)
	for _, line := range []struct{ measure, value, goal string }{
		{"resident memory after issuing them", fmt.Sprintf("%d MiB", grown>>20), goal(fmt.Sprintf("%d MiB", most), grown>>20 <= most)},
		{"resident memory after a restart", fmt.Sprintf("%d MiB", restarted>>20), goal(fmt.Sprintf("%d MiB", most), restarted>>20 <= most)},
		{
			"from ready to the end of a pass over all of them, after a restart", fmt.Sprintf("%.1f s", took.Seconds()),
			goal(fmt.Sprintf("%.1f s", soonest), took.Seconds() <= soonest),
		},
		{"writes to ApiKeys and Secrets after a restart", strconv.Itoa(writes(before, after)), goal("0", writes(before, after) == 0)},
	} {
		fmt.Printf("| %s | %s | %s |\n", line.measure, line.value, line.goal)
	}
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
