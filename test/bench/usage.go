package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

const (
	// usageBudget is the operator's default limit of writes a second.
	usageBudget = 5
	// quietNamespace has few keys, beside a namespace that has most of them.
	quietNamespace, quietKeys = "quiet", 10
	// rounding is by how much a recorded time may be off: reporter and operator count in whole seconds, each in its own way.
	rounding = 3 * time.Second
)

// usageLoad is what two verifiers are asked.
type usageLoad struct {
	keys, perSecond int
	during          time.Duration
}

// usedKey is a key, and when it was used: not before the first request was sent, and not after the last was answered.
type usedKey struct {
	namespace, name, token string
	first, last            atomic.Int64 // Unix nanoseconds
}

// usageRun is what a run with or without the recording of use has cost.
type usageRun struct {
	answers                           float64 // a second
	apiServer, etcd, operator, verify time.Duration
	requests                          map[string]float64
	bytes                             float64
	keys                              []*usedKey
	writes                            *usageWrites
}

// benchUsage asks two verifiers about many keys, without and with the recording of their use, and checks what was recorded.
func benchUsage(ctx context.Context, load usageLoad) error {
	without, err := runUsage(ctx, load, false)
	if err != nil {
		return err
	}
	with, err := runUsage(ctx, load, true)
	if err != nil {
		return err
	}
	minutes := load.during.Minutes()
	fmt.Printf("\n%d keys, two verifiers, %d requests a second wanted for %s, without and with the recording of use\n\n", load.keys, load.perSecond, load.during)
	fmt.Println("| measure | without | with |")
	fmt.Println("|---|---|---|")
	fmt.Printf("| requests answered a second | %.0f | %.0f |\n", without.answers, with.answers)
	for _, row := range []struct {
		name       string
		none, some time.Duration
	}{
		{"API server", without.apiServer, with.apiServer}, {"etcd", without.etcd, with.etcd},
		{"operator", without.operator, with.operator}, {"both verifiers", without.verify, with.verify},
	} {
		fmt.Printf("| processor time a minute, %s | %.1f s | %.1f s |\n", row.name, row.none.Seconds()/minutes, row.some.Seconds()/minutes)
	}
	for _, name := range []string{"APPLY apikeyusages", "PATCH apikeys/status"} {
		fmt.Printf("| API requests a minute, %s | %.1f | %.1f |\n", name, without.requests[name]/minutes, with.requests[name]/minutes)
	}
	fmt.Printf("| bytes a minute of ApiKeys and ApiKeyUsages: requests, answers and watch events | %.0f KiB | %.0f KiB |\n",
		without.bytes/1024/minutes, with.bytes/1024/minutes)
	return with.check()
}

// check compares what was recorded with what was used, and prints it.
func (r *usageRun) check() error {
	times, latest := r.writes.result()
	var problems []error
	recorded, quiet, slowest := 0, 0, time.Duration(0)
	for _, key := range r.keys {
		id := key.namespace + "/" + key.name
		writes := times[id]
		if len(writes) == 0 {
			continue
		}
		recorded++
		if len(writes) > 1 {
			problems = append(problems, fmt.Errorf("%s was written %d times within an hour", id, len(writes)))
		}
		first, last := time.Unix(0, key.first.Load()), time.Unix(0, key.last.Load())
		if at := latest[id]; at.Before(first.Add(-rounding)) || at.After(last.Add(rounding)) {
			problems = append(problems, fmt.Errorf("%s was used from %s to %s, but %s is on record", id, first, last, at))
		}
		if key.namespace == quietNamespace {
			quiet++
			slowest = max(slowest, writes[0].Sub(first))
		}
	}
	most := r.writes.mostWithin(time.Minute)
	fmt.Printf("\n%d of %d keys recorded, none twice, each at a time at which it was used; at most %d writes in a minute (the budget is %d);\n"+
		"the last of %d keys of a namespace beside one of %d was recorded %.1f s after its first use.\n",
		recorded, len(r.keys), most, 60*usageBudget, quietKeys, busyShare(len(r.keys)), slowest.Seconds())
	if quiet < quietKeys || slowest > time.Minute {
		problems = append(problems, fmt.Errorf("%d of %d quiet keys were recorded, the last after %s", quiet, quietKeys, slowest))
	}
	if most > 60*usageBudget+usageBudget {
		problems = append(problems, fmt.Errorf("%d writes in a minute", most))
	}
	return errors.Join(problems...)
}

// busyShare is the number of keys in the busy namespace.
func busyShare(keys int) int { return keys * 9 / 10 }

// runUsage measures one run on a new control plane.
func runUsage(ctx context.Context, load usageLoad, recording bool) (r *usageRun, err error) {
	plane, err := install(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	keys, err := seedUsage(ctx, plane, load.keys)
	if err != nil {
		return nil, err
	}
	var operatorArgs, verifierArgs []string
	if !recording {
		operatorArgs, verifierArgs = []string{"--usage-writes-per-second=0"}, []string{"--report-usage=false"}
	}
	operator, err := plane.StartOperator(ctx, io.Discard, operatorArgs...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	if _, err := waitForReconciles(ctx, plane, operator, load.keys); err != nil {
		return nil, err
	}
	processes, addresses := map[string][]int{"operator": {operator.Pid()}}, []string{}
	for _, name := range []string{"one", "two"} {
		v, err := startVerifierInPod(ctx, plane, name, verifierArgs...)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, v.Stop()) }()
		processes["verify"] = append(processes["verify"], v.Pid())
		addresses = append(addresses, v.HTTP)
	}
	for _, component := range []string{controlplane.APIServer, controlplane.EtcdName} {
		pid, err := plane.Pid(component)
		if err != nil {
			return nil, err
		}
		processes[component] = []int{pid}
	}
	writes, err := watchUsage(ctx, plane)
	if err != nil {
		return nil, err
	}
	defer writes.stop()

	before, err := measureUsage(ctx, plane, processes)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	answers, err := usePaced(ctx, load, keys, addresses)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	after, err := measureUsage(ctx, plane, processes)
	if err != nil {
		return nil, err
	}
	r = &usageRun{
		answers: float64(answers) / took.Seconds(), keys: keys, writes: writes, requests: map[string]float64{},
		apiServer: after.cpu[controlplane.APIServer] - before.cpu[controlplane.APIServer], etcd: after.cpu[controlplane.EtcdName] - before.cpu[controlplane.EtcdName],
		operator: after.cpu["operator"] - before.cpu["operator"], verify: after.cpu["verify"] - before.cpu["verify"],
		bytes: after.bytes - before.bytes,
	}
	for name, n := range after.requests {
		r.requests[name] = n - before.requests[name]
	}
	return r, nil
}

// seedUsage creates keys: nine of ten in one namespace, ten in another, and the rest in a third.
func seedUsage(ctx context.Context, plane *controlplane.ControlPlane, n int) (keys []*usedKey, err error) {
	s, err := newSeeder(ctx, plane)
	if err != nil {
		return nil, err
	}
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return nil, err
	}
	busy := busyShare(n)
	for _, part := range []struct {
		namespace string
		keys      int
	}{{"busy", busy}, {quietNamespace, quietKeys}, {"others", n - busy - quietKeys}} {
		if err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: part.namespace}}); err != nil {
			return nil, err
		}
		all, err := s.fill(ctx, part.namespace, part.keys)
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			keys = append(keys, &usedKey{namespace: part.namespace, name: one.name, token: one.token})
		}
	}
	return keys, s.waitCached(ctx)
}

// startVerifierInPod starts a verifier with the identity of a pod, which no node runs. Each pod has a report of its own.
func startVerifierInPod(ctx context.Context, plane *controlplane.ControlPlane, name string, args ...string) (*controlplane.Verifier, error) {
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: controlplane.Namespace, Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: controlplane.VerifierAccount,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{Name: "verifier", Image: "apikey-verifier", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		},
	}
	if err := c.Create(ctx, pod); err != nil {
		return nil, err
	}
	config, err := plane.AsPod(ctx, pod)
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(plane.Folder(), name+".kubeconfig")
	if err := controlplane.WriteKubeconfig(config, kubeconfig); err != nil {
		return nil, err
	}
	at, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return nil, err
	}
	v, err := plane.StartVerifier(ctx, io.Discard, at, append([]string{"--peer-is-client", "--drain-delay=0s", "--kubeconfig=" + kubeconfig}, args...)...)
	if err != nil {
		return nil, err
	}
	return v, v.WaitHTTP(ctx, v.Probes+"/readyz")
}

// usePaced uses all keys in turns, at verifiers in turns, at a limited rate. It returns the number of answers.
func usePaced(ctx context.Context, load usageLoad, keys []*usedKey, addresses []string) (int64, error) {
	limit, cancel := context.WithTimeout(ctx, load.during)
	defer cancel()
	var answers atomic.Int64
	failed := make(chan error, loadConnections)
	var group sync.WaitGroup
	for i := range loadConnections {
		ask, closeConnection, err := connectHTTP(addresses[i%len(addresses)])()
		if err != nil {
			return 0, err
		}
		group.Go(func() {
			defer closeConnection()
			pace := time.NewTicker(time.Second * loadConnections / time.Duration(load.perSecond))
			defer pace.Stop()
			for n := i; limit.Err() == nil; n += loadConnections {
				select {
				case <-limit.Done():
					return
				case <-pace.C:
				}
				key := keys[n%len(keys)]
				key.first.CompareAndSwap(0, time.Now().UnixNano())
				ok, err := ask(ctx, key.token)
				if err == nil && !ok {
					err = errors.New("the token of an issued key was refused")
				}
				if err != nil {
					failed <- err
					return
				}
				key.last.Store(time.Now().UnixNano())
				answers.Add(1)
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
		return answers.Load(), nil
	}
}

// usageWrites are the writes of last uses that a watch has shown.
type usageWrites struct {
	stop func()

	mu     sync.Mutex
	times  map[string][]time.Time
	latest map[string]time.Time
}

func watchUsage(ctx context.Context, plane *controlplane.ControlPlane) (*usageWrites, error) {
	stream, err := harness.Watch(ctx, plane.Admin, &v1alpha1.ApiKeyList{})
	if err != nil {
		return nil, err
	}
	w := &usageWrites{stop: stream.Stop, times: map[string][]time.Time{}, latest: map[string]time.Time{}}
	go func() {
		for event := range stream.ResultChan() {
			key, isKey := event.Object.(*v1alpha1.ApiKey)
			if !isKey || key.Status.LastUsedAt == nil {
				continue
			}
			id := key.Namespace + "/" + key.Name
			w.mu.Lock()
			if at := key.Status.LastUsedAt.Time; !at.Equal(w.latest[id]) {
				w.times[id], w.latest[id] = append(w.times[id], time.Now()), at
			}
			w.mu.Unlock()
		}
	}()
	return w, nil
}

func (w *usageWrites) result() (times map[string][]time.Time, latest map[string]time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.times, w.latest
}

// mostWithin returns the largest number of writes in any span of time.
func (w *usageWrites) mostWithin(span time.Duration) (most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []time.Time
	for _, times := range w.times {
		all = append(all, times...)
	}
	slices.SortFunc(all, time.Time.Compare)
	from := 0
	for to, at := range all {
		for at.Sub(all[from]) >= span {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}
