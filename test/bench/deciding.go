package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"

	"golang.org/x/perf/benchfmt"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

const (
	indexPackage = "./internal/index"
	feedPackage  = "./internal/feed"
)

// decisionSizes are the numbers of keys for which package index has a benchmark.
var decisionSizes = []int{1_000, 10_000, 100_000, 1_000_000}

// decisionGoals are the goals for the time of a decision in nanoseconds, by the number of keys.
var decisionGoals = map[int]float64{1_000: 250, 100_000: 320, 1_000_000: 380}

// benchDeciding measures decisions in process, with up to so many keys, and what the index costs. The measurements themselves are
// benchmarks of the packages.
func benchDeciding(ctx context.Context, most, rounds int) error {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	fmt.Printf("\nIn process; median of %d runs of `go test -bench`\n\n", rounds)
	fmt.Println("| measure | keys | value | goal |")
	fmt.Println("|---|---|---|---|")
	for _, n := range decisionSizes {
		if n > most {
			break
		}
		r, err := goBench(ctx, root, indexPackage, decideBenchmark(n), rounds)
		if err != nil {
			return err
		}
		times, allocations := r.nanoseconds(), r.values("allocs/op")
		text, met := "", true
		if wanted, exists := decisionGoals[n]; exists {
			text, met = fmt.Sprintf("%.0f ns, 0 allocations", wanted), middle(times) <= wanted && middle(allocations) == 0
		}
		report("decision", n, fmt.Sprintf("%.0f ns (%s), %.0f allocations", middle(times), spread(times, "%.0f"), middle(allocations)), text, met)
	}

	r, err := goBench(ctx, root, indexPackage, "^BenchmarkAllCores$", rounds)
	if err != nil {
		return err
	}
	times := middle(r.values("times"))
	report("all cores beside one, throughput", goalFleet, fmt.Sprintf("%.2f times; SHA-256 alone, which shares nothing, %.2f times", times,
		middle(r.values("times-for-SHA-256"))), "1.9 times on 2 cores", times >= 1.9)
	if r, err = goBench(ctx, root, indexPackage, "^BenchmarkMemory$", 1); err != nil {
		return err
	}
	heap := middle(r.values("bytes/key"))
	report("live heap of a key", goalFleet, fmt.Sprintf("%.0f bytes", heap), "300 bytes", heap <= 300)
	if r, err = goBench(ctx, root, feedPackage, "^BenchmarkOneRoleChanges$", rounds); err != nil {
		return err
	}
	changes := r.nanoseconds()
	for i := range changes {
		changes[i] /= 1e6
	}
	report("one of 5,000 roles changes, until it counts", 2_000, fmt.Sprintf("%.1f ms (%s)", middle(changes), spread(changes, "%.1f")), "100 ms",
		middle(changes) <= 100)
	return printParts(ctx, root, rounds)
}

// printParts prints what the parts of a decision take. The benchmarks of some parts include others, which are subtracted.
func printParts(ctx context.Context, root string, rounds int) error {
	r, err := goBench(ctx, root, indexPackage, "^BenchmarkParts$", rounds)
	if err != nil {
		return err
	}
	took := func(name string) float64 { return middle(r.named("Parts/" + name).nanoseconds()) }
	fmt.Printf("\nThe parts of a decision with 100,000 keys\n\n| part | median |\n|---|---|\n")
	for _, part := range []struct {
		name string
		ns   float64
	}{
		{"SHA-256 of the token", took("hash")},
		{"digits and checksum of the token", took("token") - took("hash")},
		{"the header around it", took("header") - took("token")},
		{"lookup of the digest", took("lookup")},
		{"judgement: expiry, networks, roles", took("lookup_and_judgement") - took("lookup")},
	} {
		fmt.Printf("| %s | %.0f ns |\n", part.name, part.ns)
	}
	return nil
}

// decideBenchmark matches the name of the benchmark of a decision with n keys.
func decideBenchmark(n int) string { return fmt.Sprintf("^BenchmarkDecide$/^%d_keys$", n) }

// benchResults are what `go test -bench` printed.
type benchResults []*benchfmt.Result

// goBench runs the matching benchmarks of a package several times. It returns an error if there is none.
func goBench(ctx context.Context, root, folder, matching string, count int) (benchResults, error) {
	command := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", matching, "-count", strconv.Itoa(count), folder)
	command.Dir = root
	out, err := command.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test -bench %s %s: %w\n%s", matching, folder, err, out)
	}
	var results benchResults
	reader := benchfmt.NewReader(bytes.NewReader(out), folder)
	for reader.Scan() {
		if r, ok := reader.Result().(*benchfmt.Result); ok {
			results = append(results, r.Clone())
		}
	}
	if err := reader.Err(); err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("go test -bench %s %s: no benchmark ran\n%s", matching, folder, out)
	}
	return results, nil
}

// values returns what all results have for a unit.
func (r benchResults) values(unit string) []float64 {
	values := make([]float64, 0, len(r))
	for _, result := range r {
		if value, ok := result.Value(unit); ok {
			values = append(values, value)
		}
	}
	return values
}

// nanoseconds returns the times of all results.
func (r benchResults) nanoseconds() []float64 {
	times := r.values("sec/op")
	for i := range times {
		times[i] *= 1e9
	}
	return times
}

// cores ends the names of results, with the number of cores.
var cores = regexp.MustCompile(`-\d+$`)

// named returns the results with a name.
func (r benchResults) named(name string) (some benchResults) {
	for _, result := range r {
		if cores.ReplaceAllString(result.Name.String(), "") == name {
			some = append(some, result)
		}
	}
	return some
}
