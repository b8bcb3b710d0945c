package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

const (
	smallFleet = 10_000
	goalFleet  = 100_000 // of the goals for memory
	deletions  = 200
)

// benchVerifying measures the verifier on a real API server, and compares it with servers that do nothing.
func benchVerifying(ctx context.Context, largest, rounds int, during time.Duration) (err error) {
	plane, err := install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	seeder, err := newSeeder(ctx, plane)
	if err != nil {
		return err
	}
	fmt.Printf("\nThe verifier's own processor time, without the client's; median of %d runs of %s, alternating with the floor\n\n", rounds, during)
	fmt.Println("| measure | keys | value | goal |")
	fmt.Println("|---|---|---|---|")
	for _, n := range slices.Compact([]int{min(smallFleet, largest), largest}) {
		if err := seeder.grow(ctx, n); err != nil {
			return err
		}
		if err := measureStart(ctx, plane, n, rounds); err != nil {
			return err
		}
	}
	v, err := startVerifier(ctx, plane)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Stop()) }()
	if err := measureCost(ctx, v, largest, seeder.tokens, rounds, during); err != nil {
		return err
	}
	second, err := startVerifier(ctx, plane)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Stop()) }()
	return measureDeletions(ctx, plane, []*controlplane.Verifier{v, second}, largest, seeder.tokens)
}

func startVerifier(ctx context.Context, plane *controlplane.ControlPlane) (*controlplane.Verifier, error) {
	at, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return nil, err
	}
	v, err := plane.StartVerifier(ctx, io.Discard, at, "--peer-is-client", "--drain-delay=0s")
	if err != nil {
		return nil, err
	}
	return v, v.WaitHTTP(ctx, v.Probes+"/readyz")
}

func measureStart(ctx context.Context, plane *controlplane.ControlPlane, keys, rounds int) error {
	kubeconfig, remove, err := verifierKubeconfig(ctx, plane)
	if err != nil {
		return err
	}
	defer remove()
	var took, ratios, own, resident []float64
	for range rounds {
		bare, err := timeBareStart(kubeconfig)
		if err != nil {
			return err
		}
		s, err := timeStart(ctx, plane)
		if err != nil {
			return err
		}
		took, ratios = append(took, s.took.Seconds()), append(ratios, float64(s.took)/float64(bare))
		own, resident = append(own, float64(s.own.Microseconds())/float64(keys)), append(resident, float64(s.resident>>20))
	}
	report("start to ready, against a bare client that reads the same watch", keys, fmt.Sprintf("%.2f s, %.2f times", middle(took), middle(ratios)),
		"1.3 times", middle(ratios) <= 1.3)
	report("verifier's own processor time until it is ready", keys, fmt.Sprintf("%.0f µs a key", middle(own)), "35 µs", middle(own) <= 35)
	goal, met := memoryGoal(keys, 100, int64(middle(resident)))
	report("resident memory once ready", keys, fmt.Sprintf("%.0f MiB", middle(resident)), goal, met)
	return nil
}

// memoryGoal returns a goal in MiB, and whether it is met. There is none for other numbers of keys than goalFleet.
func memoryGoal(keys int, goal, used int64) (text string, met bool) {
	if keys != goalFleet {
		return "", true
	}
	return fmt.Sprintf("%d MiB", goal), used <= goal
}

// goal returns a goal, and says so if it is missed.
func goal(text string, met bool) string {
	if text == "" || met {
		return text
	}
	return text + ": **missed**"
}

// report prints a line of the table of the verifier. The goal may be empty.
func report(measure string, keys int, value, wanted string, met bool) {
	fmt.Printf("| %s | %d | %s | %s |\n", measure, keys, value, goal(wanted, met))
}

// verifierKubeconfig writes a kubeconfig of the verifier's service account. remove deletes it.
func verifierKubeconfig(ctx context.Context, plane *controlplane.ControlPlane) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	path = filepath.Join(dir, "verifier.kubeconfig")
	if err := plane.KubeconfigAs(ctx, controlplane.Namespace, controlplane.VerifierAccount, path); err != nil {
		remove()
		return "", nil, err
	}
	return path, remove, nil
}

func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// measureCost compares the processor time per request, and the latency at a fixed rate, with those of servers that do nothing. Each round
// measures the floor twice: how far its two values are apart says what the machine's noise hides.
func measureCost(ctx context.Context, v *controlplane.Verifier, keys int, tokens []seeded, rounds int, during time.Duration) (err error) {
	at, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return err
	}
	floor, err := startEmptyServers(ctx, at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, floor.Stop()) }()
	for _, protocol := range []struct {
		name            string
		goal            float64
		floor, verifier connector
	}{
		{"ext_authz", 0.75, connectGRPC(at.GRPC), connectGRPC(v.GRPC)},
		{"forward-auth", 1.15, connectHTTP("http://" + at.HTTP), connectHTTP(v.HTTP)},
	} {
		var floors, costs, ratios, noise []float64
		for range rounds {
			var spent [3]time.Duration
			for i, side := range []struct {
				pid     int
				connect connector
			}{{floor.Pid(), protocol.floor}, {v.Pid(), protocol.verifier}, {floor.Pid(), protocol.floor}} {
				if spent[i], err = cost(ctx, side.pid, tokens, side.connect, during); err != nil {
					return err
				}
			}
			empty := float64(spent[0]+spent[2]) / 2
			floors, costs = append(floors, empty/1e3), append(costs, float64(spent[1])/1e3)
			ratios, noise = append(ratios, float64(spent[1])/empty), append(noise, float64(spent[2])/float64(spent[0]))
		}
		report(protocol.name+", processor time of a request, against an empty server", keys,
			fmt.Sprintf("%.0f µs, %.2f times %.0f µs (%s; the floor against itself %s)",
				middle(costs), middle(ratios), middle(floors), spread(ratios, "%.2f"), spread(noise, "%.2f")),
			fmt.Sprintf("%.2f times", protocol.goal), middle(ratios) <= protocol.goal)
		if err := measureLatency(ctx, protocol.name, keys, tokens, during, protocol.floor, protocol.verifier); err != nil {
			return err
		}
	}
	rss, err := memory(v.Process)
	if err != nil {
		return err
	}
	goal, met := memoryGoal(keys, 110, rss>>20)
	report("resident memory after the load", keys, fmt.Sprintf("%d MiB", rss>>20), goal, met)
	return nil
}

// spread names the least and the greatest of some values, each in a format.
func spread(values []float64, format string) string {
	return fmt.Sprintf(format+" to "+format, slices.Min(values), slices.Max(values))
}

// openRate is the number of requests a second of the measurement of latency. It leaves the machine time to spare.
const openRate = 1000

// measureLatency sends requests at a fixed rate to an empty server and to the verifier.
func measureLatency(ctx context.Context, name string, keys int, tokens []seeded, during time.Duration, floor, verifier connector) error {
	var p50s, p99s []string
	for _, connect := range []connector{floor, verifier} {
		took, err := openLoad(ctx, tokens, connect, openRate, during)
		if err != nil {
			return err
		}
		p50s, p99s = append(p50s, millis(quantile(took, 0.5))), append(p99s, millis(quantile(took, 0.99)))
	}
	report(fmt.Sprintf("%s, latency at %d requests a second, counted from when each was due", name, openRate), keys,
		fmt.Sprintf("p50 %s, p99 %s; the empty server's %s, %s", p50s[1], p99s[1], p50s[0], p99s[0]), "", true)
	return nil
}

// measureDeletions measures the time from the answer to a DELETE until every verifier refuses the token, beside the time until as many bare
// clients refuse it.
func measureDeletions(ctx context.Context, plane *controlplane.ControlPlane, verifiers []*controlplane.Verifier, keys int, tokens []seeded) (err error) {
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return err
	}
	kubeconfig, remove, err := verifierKubeconfig(ctx, plane)
	if err != nil {
		return err
	}
	defer remove()
	var bares []*bareClient
	for range verifiers {
		bare, err := startBareClient(kubeconfig)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, bare.Stop()) }()
		bares = append(bares, bare)
	}
	// The load uses other keys than those that are deleted.
	doomed, loading := tokens[:4*deletions], tokens[4*deletions:]
	for _, busy := range []bool{false, true} {
		name, goal := "idle", 1.2
		limit, cancel := context.WithCancel(ctx)
		failed := make(chan error, len(verifiers))
		if busy {
			name, goal = "under full load of checks", 1.5
			for _, v := range verifiers {
				go func() {
					_, err := load(limit, loading, connectGRPC(v.GRPC))
					failed <- err
				}()
			}
		}
		took, err := timeDeletions(ctx, deleteKey(ctx, c), doomed[:2*deletions], verifierWatchers(verifiers...), bareWatchers(bares...))
		cancel()
		if busy {
			for range verifiers {
				err = errors.Join(err, <-failed)
			}
		}
		if err != nil {
			return err
		}
		doomed = doomed[2*deletions:]
		p50, p99 := quantile(took[0], 0.5), quantile(took[0], 0.99)
		bare50, bare99 := quantile(took[1], 0.5), quantile(took[1], 0.99)
		report(fmt.Sprintf("from the answer to a DELETE to the first refusal, the slower of %d replicas, %d deletions, %s", len(verifiers), deletions, name),
			keys, fmt.Sprintf("p50 %s, p99 %s; %.2f and %.2f times the slower of %d bare clients, %s, %s", millis(p50), millis(p99),
				float64(p50)/float64(bare50), float64(p99)/float64(bare99), len(bares), millis(bare50), millis(bare99)),
			fmt.Sprintf("%.1f times", goal), float64(p99) <= goal*float64(bare99) && (busy || float64(p50) <= goal*float64(bare50)))
	}
	return nil
}

func deleteKey(ctx context.Context, c client.Client) func(seeded) error {
	return func(key seeded) error {
		object := &v1alpha1.ApiKey{}
		object.Namespace, object.Name = seedNamespace, key.name
		return c.Delete(ctx, object)
	}
}

// watcher is an ext_authz server that learns of deletions.
type watcher struct {
	address string
	// credential is what it takes for a key.
	credential func(seeded) string
}

func verifierWatchers(verifiers ...*controlplane.Verifier) []watcher {
	all := make([]watcher, 0, len(verifiers))
	for _, v := range verifiers {
		all = append(all, watcher{v.GRPC, func(key seeded) string { return key.token }})
	}
	return all
}

func bareWatchers(clients ...*bareClient) []watcher {
	all := make([]watcher, 0, len(clients))
	for _, b := range clients {
		all = append(all, watcher{b.grpc, func(key seeded) string { return key.name }})
	}
	return all
}

// askPause is the time between two questions about a deleted key. Without it, the questions would keep the cores busy, and the API server
// needs these to send the event.
var askPause = unix.Timespec{Nsec: 100_000}

// timeDeletions deletes keys one after the other, and asks one group of watchers about each; the groups take turns. For each group, it
// returns the times from the answer to a deletion until the slowest watcher refuses.
func timeDeletions(ctx context.Context, remove func(seeded) error, doomed []seeded, groups ...[]watcher) ([][]time.Duration, error) {
	asks := make([][]asker, len(groups))
	for i, group := range groups {
		for _, w := range group {
			ask, closeConnection, err := connectGRPC(w.address)()
			if err != nil {
				return nil, err
			}
			defer closeConnection()
			asks[i] = append(asks[i], ask)
		}
	}
	took := make([][]time.Duration, len(groups))
	for n, key := range doomed {
		turn := n % len(groups)
		for i, ask := range asks[turn] {
			if ok, err := ask(ctx, groups[turn][i].credential(key)); err != nil || !ok {
				return nil, fmt.Errorf("the token of an issued key was refused: %w", err)
			}
		}
		if err := remove(key); err != nil {
			return nil, err
		}
		start := time.Now()
		durations := make([]time.Duration, len(asks[turn]))
		var waiting errgroup.Group
		for i, ask := range asks[turn] {
			waiting.Go(func() error {
				for {
					ok, err := ask(ctx, groups[turn][i].credential(key))
					if err != nil || !ok {
						durations[i] = time.Since(start)
						return err
					}
					if err := unix.Nanosleep(&askPause, nil); err != nil { // Go's own timers may be a millisecond late
						return err
					}
				}
			})
		}
		if err := waiting.Wait(); err != nil {
			return nil, err
		}
		took[turn] = append(took[turn], slices.Max(durations))
	}
	return took, nil
}
