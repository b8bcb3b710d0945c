package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

const (
	// growthDeletions is the number of deletions that each side is asked about, at each size.
	growthDeletions = 50
	// idlePeriod is how long processes are watched while nothing happens.
	idlePeriod = 10 * time.Second
)

// point is what was measured with a number of keys. Values that were not measured are 0.
type point struct {
	keys                      int
	start, bareStart          time.Duration
	own                       time.Duration // the verifier's processor time until it was ready
	resident, apiServer, etcd int64         // bytes
	database                  int64         // bytes of etcd's file
	decision                  float64       // nanoseconds
	deletion, bareDeletion    time.Duration // median
	idle                      float64       // part of a core that the verifier uses without requests
	apiServerIdle             float64       // the same of the API server
	replayed                  bool
}

// benchGrowth measures how start, memory, decisions and revocations grow with the number of keys: on a real API server, and for the
// largest number against a replay of its bytes.
func benchGrowth(ctx context.Context, largest, replayed, rounds int, plots string) (err error) {
	plane, err := install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	seeder, err := newSeeder(ctx, plane)
	if err != nil {
		return err
	}
	var points []point
	for n := 1_000; n <= largest; n *= 10 {
		if err := seeder.grow(ctx, n); err != nil {
			return err
		}
		p, err := measureSize(ctx, plane, seeder, n, rounds)
		if err != nil {
			return fmt.Errorf("with %d keys: %w", n, err)
		}
		points = append(points, p)
	}
	if replayed > 0 {
		p, err := measureReplay(ctx, plane, replayed)
		if err != nil {
			return fmt.Errorf("with %d keys of a replay: %w", replayed, err)
		}
		points = append(points, p)
	}
	for i := range points {
		if !slices.Contains(decisionSizes, points[i].keys) {
			continue
		}
		decisions, err := goBench(ctx, plane.Root, indexPackage, decideBenchmark(points[i].keys), 1)
		if err != nil {
			return err
		}
		points[i].decision = middle(decisions.nanoseconds())
	}
	printGrowth(points)
	if plots == "" {
		return nil
	}
	return drawGrowth(points, plots)
}

func printGrowth(points []point) {
	fmt.Printf("\nHow it grows; the bare client reads the same watch and decodes nothing\n\n")
	fmt.Println("| keys | start to ready | the bare client's | verifier's processor time a key | verifier resident | API server | etcd | etcd's file | " +
		"decision | deletion, p50 | the bare client's | idle: verifier | idle: API server |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, p := range points {
		name := strconv.Itoa(p.keys)
		if p.replayed {
			name += " (replay)"
		}
		fmt.Printf("| %s | %.2f s, %.2f times | %.2f s | %.0f µs | %d MiB | %s | %s | %s | %s | %s | %s | %.1f %% of a core | %s |\n",
			name, p.start.Seconds(), float64(p.start)/float64(p.bareStart), p.bareStart.Seconds(),
			float64(p.own.Microseconds())/float64(p.keys), p.resident>>20, mib(p.apiServer), mib(p.etcd), mib(p.database), nanos(p.decision),
			millis(p.deletion), millis(p.bareDeletion), 100*p.idle, percent(p.apiServerIdle))
	}
}

func mib(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

func nanos(ns float64) string {
	if ns == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f ns", ns)
}

func millis(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

func percent(part float64) string {
	if part == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f %%", 100*part)
}

// measureSize measures a verifier on a real API server with n keys.
func measureSize(ctx context.Context, plane *controlplane.ControlPlane, seeder *seeder, n, rounds int) (_ point, err error) {
	kubeconfig, remove, err := verifierKubeconfig(ctx, plane)
	if err != nil {
		return point{}, err
	}
	defer remove()
	p := point{keys: n}
	// The first client waits for what the API server then keeps.
	if _, err := timeBareStart(kubeconfig); err != nil {
		return point{}, err
	}
	var starts, bareStarts, owns, residents []float64
	for range rounds {
		took, err := timeBareStart(kubeconfig)
		if err != nil {
			return point{}, err
		}
		bareStarts = append(bareStarts, float64(took))
		s, err := timeStart(ctx, plane)
		if err != nil {
			return point{}, err
		}
		starts, owns, residents = append(starts, float64(s.took)), append(owns, float64(s.own)), append(residents, float64(s.resident))
	}
	p.start, p.bareStart = time.Duration(middle(starts)), time.Duration(middle(bareStarts))
	p.own, p.resident = time.Duration(middle(owns)), int64(middle(residents))

	v, err := startVerifier(ctx, plane)
	if err != nil {
		return point{}, err
	}
	defer func() { err = errors.Join(err, v.Stop()) }()
	bare, err := startBareClient(kubeconfig)
	if err != nil {
		return point{}, err
	}
	defer func() { err = errors.Join(err, bare.Stop()) }()
	apiServer, err := plane.Pid(controlplane.APIServer)
	if err != nil {
		return point{}, err
	}
	etcd, err := plane.Pid(controlplane.EtcdName)
	if err != nil {
		return point{}, err
	}
	if p.apiServer, _, err = controlplane.MemoryOf(apiServer); err != nil {
		return point{}, err
	}
	if p.etcd, _, err = controlplane.MemoryOf(etcd); err != nil {
		return point{}, err
	}
	database, err := os.Stat(plane.Database())
	if err != nil {
		return point{}, err
	}
	p.database = database.Size()
	idle, err := idleParts(ctx, v.Pid(), apiServer)
	if err != nil {
		return point{}, err
	}
	p.idle, p.apiServerIdle = idle[0], idle[1]

	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return point{}, err
	}
	took, err := timeDeletions(ctx, deleteKey(ctx, c), seeder.take(2*growthDeletions), verifierWatchers(v), bareWatchers(bare))
	if err != nil {
		return point{}, err
	}
	p.deletion, p.bareDeletion = quantile(took[0], 0.5), quantile(took[1], 0.5)
	return p, nil
}

type startup struct {
	took, own time.Duration
	resident  int64
}

// timeStart measures the start of a verifier.
func timeStart(ctx context.Context, plane *controlplane.ControlPlane) (startup, error) {
	v, err := startVerifier(ctx, plane)
	if err != nil {
		return startup{}, err
	}
	took := time.Since(v.Started())
	rss, err := memory(v.Process)
	own, cpuErr := cpuTime(v.Pid())
	return startup{took, own, rss}, errors.Join(err, cpuErr, v.Stop())
}

// idleParts returns which part of a core each process uses while nothing happens.
func idleParts(ctx context.Context, pids ...int) ([]float64, error) {
	before := make([]time.Duration, len(pids))
	for i, pid := range pids {
		var err error
		if before[i], err = cpuTime(pid); err != nil {
			return nil, err
		}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(idlePeriod):
	}
	parts := make([]float64, len(pids))
	for i, pid := range pids {
		after, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		parts[i] = float64(after-before[i]) / float64(idlePeriod)
	}
	return parts, nil
}

// measureReplay measures a verifier whose API server is a replay of n keys.
func measureReplay(ctx context.Context, plane *controlplane.ControlPlane, n int) (_ point, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return point{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	pattern, doomed, err := readPattern(ctx, plane)
	if err != nil {
		return point{}, err
	}
	text, err := json.Marshal(pattern)
	if err != nil {
		return point{}, err
	}
	file, kubeconfig := filepath.Join(dir, "pattern.json"), filepath.Join(dir, "replay.kubeconfig")
	address, err := controlplane.FreeAddress()
	if err != nil {
		return point{}, err
	}
	self, err := os.Executable()
	if err := errors.Join(err, os.WriteFile(file, text, 0o600),
		controlplane.WriteKubeconfig(&rest.Config{Host: "http://" + address}, kubeconfig)); err != nil {
		return point{}, err
	}
	command := exec.Command(self, "-replay", address, "-replay-pattern", file, "-replay-keys", strconv.Itoa(n)) //nolint:noctx // stopped below
	server, err := controlplane.StartProcess(command, os.Stderr)
	if err != nil {
		return point{}, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if err := server.WaitListening(ctx, "tcp", address); err != nil {
		return point{}, err
	}

	p := point{keys: n, replayed: true}
	if p.bareStart, err = timeBareStart(kubeconfig); err != nil {
		return point{}, err
	}
	v, err := startReplayed(ctx, plane.Root, kubeconfig)
	if err != nil {
		return point{}, err
	}
	defer func() { err = errors.Join(err, v.Stop()) }()
	p.start = time.Since(v.Started())
	if p.own, err = cpuTime(v.Pid()); err != nil {
		return point{}, err
	}
	if p.resident, err = memory(v.Process); err != nil {
		return point{}, err
	}
	idle, err := idleParts(ctx, v.Pid())
	if err != nil {
		return point{}, err
	}
	p.idle = idle[0]
	number := 0
	took, err := timeDeletions(ctx, func(seeded) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodDelete, fmt.Sprintf("http://%s/keys/%d", address, number), nil)
		if err != nil {
			return err
		}
		number++
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}, doomed, verifierWatchers(v))
	if err != nil {
		return point{}, err
	}
	p.deletion = quantile(took[0], 0.5)
	return p, nil
}

// startReplayed starts a verifier that reads from a replay. It reports no usage, which a replay does not take.
func startReplayed(ctx context.Context, root, kubeconfig string) (*controlplane.Verifier, error) {
	at, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return nil, err
	}
	probes, err := controlplane.FreeAddress()
	if err != nil {
		return nil, err
	}
	command := exec.Command(filepath.Join(root, "bin", "apikey-verifier"), "--kubeconfig="+kubeconfig, "--http-bind-address="+at.HTTP, //nolint:noctx // stopped by Stop
		"--grpc-bind-address="+at.GRPC, "--health-probe-bind-address="+probes, "--metrics-bind-address=0", "--peer-is-client",
		"--drain-delay=0s", "--report-usage=false")
	process, err := controlplane.StartProcess(command, io.Discard)
	if err != nil {
		return nil, err
	}
	v := &controlplane.Verifier{Process: process, HTTP: "http://" + at.HTTP, GRPC: at.GRPC, Probes: "http://" + probes}
	return v, v.WaitHTTP(ctx, v.Probes+"/readyz")
}

// quantile returns a quantile of durations.
func quantile(durations []time.Duration, q float64) time.Duration {
	if len(durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
