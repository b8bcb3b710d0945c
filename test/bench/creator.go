package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// creator plays the user: it creates keys and watches until they are Ready.
type creator struct {
	admin     *rest.Config
	client    client.Client
	namespace string
	// shape, if set, changes each key before it is created. number is different for each key.
	shape func(number int, key *v1alpha1.ApiKey)
}

type result struct {
	rate     float64 // keys per second, from the first create to the last Ready
	p50, p99 time.Duration
	requests []string
}

func newCreator(ctx context.Context, plane *controlplane.ControlPlane, namespace string) (*creator, error) {
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return nil, err
	}
	return &creator{admin: plane.Admin, client: c, namespace: namespace},
		c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
}

// run creates n keys with the given concurrency and waits until a watch has shown all of them as Ready. If issue is set, run calls it for
// each created key. A key's latency runs from the answer to its create to the watch event.
func (c *creator) run(ctx context.Context, concurrency, n int, issue func(*v1alpha1.ApiKey)) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	stream, err := harness.Watch(ctx, c.admin, &v1alpha1.ApiKeyList{}, client.InNamespace(c.namespace))
	if err != nil {
		return result{}, err
	}
	defer stream.Stop()

	created := make([]time.Time, n)
	failures := make(chan error, concurrency)
	start := time.Now()
	var group sync.WaitGroup
	next := make(chan int)
	for range concurrency {
		group.Go(func() {
			for i := range next {
				key := build.ApiKey(c.namespace, fmt.Sprintf("key-%d", i))
				if c.shape != nil {
					c.shape(i, key)
				}
				if err := c.client.Create(ctx, key); err != nil {
					failures <- err
					return
				}
				created[i] = time.Now()
				if issue != nil {
					issue(key)
				}
			}
		})
	}
	go func() {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	}()

	ready := make(map[string]time.Time, n)
	for len(ready) < n {
		select {
		case err := <-failures:
			return result{}, err
		case <-ctx.Done():
			return result{}, fmt.Errorf("%d of %d keys Ready: %w", len(ready), n, ctx.Err())
		case event, ok := <-stream.ResultChan():
			if !ok {
				return result{}, fmt.Errorf("the watch ended with %d of %d keys Ready", len(ready), n)
			}
			key, isKey := event.Object.(*v1alpha1.ApiKey)
			if event.Type == watch.Modified && isKey && meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady) {
				if _, seen := ready[key.Name]; !seen {
					ready[key.Name] = time.Now()
				}
			}
		}
	}
	took := time.Since(start)
	group.Wait()

	latencies := make([]time.Duration, n)
	for i := range n {
		latencies[i] = ready[fmt.Sprintf("key-%d", i)].Sub(created[i])
	}
	slices.Sort(latencies)
	return result{rate: float64(n) / took.Seconds(), p50: latencies[n/2], p99: latencies[n*99/100]}, nil
}

// median returns the run with the median rate.
func median(runs []result) result {
	slices.SortFunc(runs, func(a, b result) int {
		if a.rate < b.rate {
			return -1
		}
		return 1
	})
	return runs[len(runs)/2]
}
