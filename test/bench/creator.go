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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// creator plays the user: it creates keys, or requests their rotation, and watches until that is done.
type creator struct {
	admin     *rest.Config
	client    client.Client
	namespace string
	// shape, if set, changes each key before it is created. number is different for each key.
	shape func(number int, key *v1alpha1.ApiKey)
}

type result struct {
	rate     float64 // keys per second, from the first request of the user until the last key is done
	p50, p99 time.Duration
	requests []string
	cpu      time.Duration // of the operator, for each key
}

func newCreator(ctx context.Context, plane *controlplane.ControlPlane, namespace string) (*creator, error) {
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return nil, err
	}
	return &creator{admin: plane.Admin, client: c, namespace: namespace},
		c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
}

// run creates n keys with the given concurrency and waits until a watch has shown all of them as Ready.
func (c *creator) run(ctx context.Context, concurrency, n int) (result, error) {
	return c.measure(ctx, concurrency, n, func(ctx context.Context, i int) error {
		key := build.ApiKey(c.namespace, keyName(i))
		if c.shape != nil {
			c.shape(i, key)
		}
		return c.client.Create(ctx, key)
	}, func(key *v1alpha1.ApiKey) bool {
		return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)
	})
}

// rotate requests a rotation of the n keys that run created, and waits until a watch has shown all of them as rotated.
func (c *creator) rotate(ctx context.Context, concurrency, n int) (result, error) {
	request := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"1"}}}`, v1alpha1.AnnotationRotate)
	return c.measure(ctx, concurrency, n, func(ctx context.Context, i int) error {
		key := build.ApiKey(c.namespace, keyName(i))
		return c.client.Patch(ctx, key, client.RawPatch(types.MergePatchType, request))
	}, func(key *v1alpha1.ApiKey) bool { return key.Status.Rotation != nil && key.Status.Rotation.Count == 1 })
}

func keyName(i int) string { return fmt.Sprintf("key-%d", i) }

// measure makes n requests with the given concurrency and waits until a watch has shown all keys as done. The latency of a key runs from the
// answer to its request to the watch event.
func (c *creator) measure(
	ctx context.Context, concurrency, n int, request func(context.Context, int) error, isDone func(*v1alpha1.ApiKey) bool,
) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	stream, err := harness.Watch(ctx, c.admin, &v1alpha1.ApiKeyList{}, client.InNamespace(c.namespace))
	if err != nil {
		return result{}, err
	}
	defer stream.Stop()

	requested := make([]time.Time, n)
	failures := make(chan error, concurrency)
	start := time.Now()
	var group sync.WaitGroup
	next := make(chan int)
	for range concurrency {
		group.Go(func() {
			for i := range next {
				if err := request(ctx, i); err != nil {
					failures <- err
					return
				}
				requested[i] = time.Now()
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

	done := make(map[string]time.Time, n)
	for len(done) < n {
		select {
		case err := <-failures:
			return result{}, err
		case <-ctx.Done():
			return result{}, fmt.Errorf("%d of %d keys done: %w", len(done), n, context.Cause(ctx))
		case event, ok := <-stream.ResultChan():
			if !ok {
				return result{}, fmt.Errorf("the watch ended with %d of %d keys done", len(done), n)
			}
			key, isKey := event.Object.(*v1alpha1.ApiKey)
			if event.Type == watch.Modified && isKey && isDone(key) {
				if _, seen := done[key.Name]; !seen {
					done[key.Name] = time.Now()
				}
			}
		}
	}
	took := time.Since(start)
	group.Wait()

	latencies := make([]time.Duration, n)
	for i := range n {
		latencies[i] = done[keyName(i)].Sub(requested[i])
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
