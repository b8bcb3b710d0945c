package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

const (
	smallFleet = 10_000
	largeFleet = 100_000
	deletions  = 200
)

// benchVerifying measures the verifier on a real API server, and compares it with servers that do nothing.
func benchVerifying(ctx context.Context, rounds int, during time.Duration) (err error) {
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
	fmt.Println("| measure | value |")
	fmt.Println("|---|---|")
	for _, n := range []int{smallFleet, largeFleet} {
		if err := seeder.grow(ctx, n); err != nil {
			return err
		}
		if err := waitCaughtUp(ctx, plane, n); err != nil {
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
	if err := measureCost(ctx, v, seeder.tokens, rounds, during); err != nil {
		return err
	}
	second, err := startVerifier(ctx, plane)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Stop()) }()
	return measureDeletions(ctx, plane, []*controlplane.Verifier{v, second}, seeder.tokens)
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

// waitCaughtUp waits until the API server's watch cache contains the keys that were written directly to etcd.
func waitCaughtUp(ctx context.Context, plane *controlplane.ControlPlane, keys int) error {
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return err
	}
	for {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiKeyList"))
		// With version 0, the watch cache answers with what it has.
		if err := c.List(ctx, list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}); err != nil {
			return err
		}
		if len(list.Items) >= keys {
			return nil
		}
	}
}

func measureStart(ctx context.Context, plane *controlplane.ControlPlane, keys, rounds int) error {
	var took, own, resident []float64
	for range rounds {
		start := time.Now()
		v, err := startVerifier(ctx, plane)
		if err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds())
		rss, err := memory(v.Process)
		cpu, cpuErr := cpuTime(v.Pid())
		if err := errors.Join(err, cpuErr, v.Stop()); err != nil {
			return err
		}
		own = append(own, cpu.Seconds())
		resident = append(resident, float64(rss>>20))
	}
	fmt.Printf("| start to ready, %d keys | %.2f s, including %.2f s of the verifier's processor time |\n", keys, middle(took), middle(own))
	fmt.Printf("| resident memory once ready, %d keys | %.0f MiB |\n", keys, middle(resident))
	return nil
}

func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// measureCost compares the processor time per request with that of servers that do nothing.
func measureCost(ctx context.Context, v *controlplane.Verifier, tokens []seeded, rounds int, during time.Duration) (err error) {
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
		name, floorName string
		floor, verifier func() (asker, func(), error)
	}{
		{"ext_authz", "an empty ext_authz server", connectGRPC(at.GRPC), connectGRPC(v.GRPC)},
		{"forward-auth", "an empty net/http handler", connectHTTP("http://" + at.HTTP), connectHTTP(v.HTTP)},
	} {
		var floors, costs, ratios []float64
		for range rounds {
			empty, err := cost(ctx, floor.Pid(), tokens, protocol.floor, during)
			if err != nil {
				return err
			}
			ours, err := cost(ctx, v.Pid(), tokens, protocol.verifier, during)
			if err != nil {
				return err
			}
			floors, costs = append(floors, float64(empty.Microseconds())), append(costs, float64(ours.Microseconds()))
			ratios = append(ratios, float64(ours)/float64(empty))
		}
		fmt.Printf("| %s, processor time per request, %d keys | %.0f µs, %.2f times the %.0f µs of %s |\n",
			protocol.name, largeFleet, middle(costs), middle(ratios), middle(floors), protocol.floorName)
	}
	rss, err := memory(v.Process)
	if err != nil {
		return err
	}
	fmt.Printf("| resident memory under load, %d keys | %d MiB |\n", largeFleet, rss>>20)
	return nil
}

// measureDeletions measures the time from the answer to a DELETE until every verifier refuses the token.
func measureDeletions(ctx context.Context, plane *controlplane.ControlPlane, verifiers []*controlplane.Verifier, tokens []seeded) error {
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return err
	}
	// The load uses other keys than those that are deleted.
	doomed, loading := tokens[:2*deletions], tokens[2*deletions:]
	for _, busy := range []bool{false, true} {
		name := "idle"
		limit, cancel := context.WithCancel(ctx)
		failed := make(chan error, len(verifiers))
		if busy {
			name = "under full load of checks"
			for _, v := range verifiers {
				go func() {
					_, err := load(limit, loading, connectGRPC(v.GRPC), false)
					failed <- err
				}()
			}
		}
		took, err := timeDeletions(ctx, c, verifiers, doomed[:deletions])
		cancel()
		if busy {
			for range verifiers {
				err = errors.Join(err, <-failed)
			}
		}
		if err != nil {
			return err
		}
		doomed = doomed[deletions:]
		slices.Sort(took)
		fmt.Printf("| from the DELETE's answer to the first refusal, %d deletions, the slower of %d replicas, %s | p50 %.1f ms, p99 %.1f ms |\n",
			deletions, len(verifiers), name, took[len(took)/2].Seconds()*1000, took[len(took)*99/100].Seconds()*1000)
	}
	return nil
}

func timeDeletions(ctx context.Context, c client.Client, verifiers []*controlplane.Verifier, doomed []seeded) ([]time.Duration, error) {
	asks := make([]asker, len(verifiers))
	for i, v := range verifiers {
		ask, closeConnection, err := connectGRPC(v.GRPC)()
		if err != nil {
			return nil, err
		}
		defer closeConnection()
		asks[i] = ask
	}
	var took []time.Duration
	for _, key := range doomed {
		for _, ask := range asks {
			if ok, err := ask(ctx, key.token); err != nil || !ok {
				return nil, fmt.Errorf("the token of an issued key was refused: %w", err)
			}
		}
		object := &v1alpha1.ApiKey{}
		object.Namespace, object.Name = seedNamespace, key.name
		if err := c.Delete(ctx, object); err != nil {
			return nil, err
		}
		start := time.Now()
		refused := make(chan error, len(asks))
		durations := make([]time.Duration, len(asks))
		for i, ask := range asks {
			go func() {
				for {
					ok, err := ask(ctx, key.token)
					if err != nil || !ok {
						durations[i] = time.Since(start)
						refused <- err
						return
					}
				}
			}()
		}
		for range asks {
			if err := <-refused; err != nil {
				return nil, err
			}
		}
		took = append(took, slices.Max(durations))
	}
	return took, nil
}
