package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// floor does only what issues or rotates a key: it watches the same keys, and sends the writes. It has no cache, no events and no
// decision. Like the operator, it runs in a process of its own, with the operator's service account and concurrency.
type floor struct {
	secrets kubernetes.Interface
	keys    *rest.RESTClient
	stream  watch.Interface
	work    chan *v1alpha1.ApiKey
	group   sync.WaitGroup
	failure chan error // the first one
}

// job is what a floor does with the key of a watch event, if the event asks for it.
type job struct {
	asked func(watch.EventType, *v1alpha1.ApiKey) bool
	do    func(*floor, context.Context, *v1alpha1.ApiKey) error
}

// jobs are what a floor can do, by name.
var jobs = map[string]job{
	issuing: {func(event watch.EventType, _ *v1alpha1.ApiKey) bool { return event == watch.Added }, (*floor).issue},
	rotating: {func(_ watch.EventType, key *v1alpha1.ApiKey) bool {
		return key.Annotations[v1alpha1.AnnotationRotate] != "" && key.Status.Rotation == nil
	}, (*floor).rotate},
}

// Names of jobs.
const (
	issuing  = "issuing"
	rotating = "rotating"
)

// startFloor starts a process of [serveFloor] and waits until it watches.
func startFloor(ctx context.Context, plane *controlplane.ControlPlane, namespace, job string) (*controlplane.Process, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // it has been read
	kubeconfig := filepath.Join(dir, "floor.kubeconfig")
	if err := plane.KubeconfigAs(ctx, controlplane.Namespace, controlplane.ServiceAccount, kubeconfig); err != nil {
		return nil, err
	}
	return startSelf("-floor", job, "-floor-kubeconfig", kubeconfig, "-floor-namespace", namespace)
}

// whileRuns returns a context that ends when a floor's process ends. Otherwise the keys of a floor that has failed would be waited for.
func whileRuns(ctx context.Context, floor *controlplane.Process) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(fmt.Errorf("the floor ended: %w", floor.Wait())) }()
	return ctx, func() { cancel(nil) }
}

// serveFloor does a job for the keys of a namespace until the context ends or a request fails.
func serveFloor(ctx context.Context, name, kubeconfig, namespace string) error {
	j, known := jobs[name]
	if !known {
		return fmt.Errorf("-floor=%s: must be %s or %s", name, issuing, rotating)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	f, err := newFloor(context.WithoutCancel(ctx), config, namespace, j)
	if err != nil {
		return err
	}
	fmt.Println(ready)
	select {
	case err := <-f.failure:
		return err
	case <-ctx.Done():
	}
	f.stream.Stop()
	f.group.Wait()
	select {
	case err := <-f.failure:
		return err
	default:
		return nil
	}
}

// newFloor starts a floor that does a job for the keys of a namespace.
func newFloor(ctx context.Context, config *rest.Config, namespace string, j job) (*floor, error) {
	config.QPS = -1
	secrets, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	config.GroupVersion = &v1alpha1.GroupVersion
	config.APIPath = "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(harness.Scheme()).WithoutConversion()
	keys, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	stream, err := harness.Watch(ctx, config, &v1alpha1.ApiKeyList{}, client.InNamespace(namespace))
	if err != nil {
		return nil, err
	}
	f := &floor{secrets: secrets, keys: keys, stream: stream, work: make(chan *v1alpha1.ApiKey, 1<<16), failure: make(chan error, 1)}
	go func() {
		defer close(f.work)
		for event := range stream.ResultChan() {
			if key, ok := event.Object.(*v1alpha1.ApiKey); ok && j.asked(event.Type, key) {
				f.work <- key
			}
		}
	}()
	for range workers {
		f.group.Go(func() {
			for key := range f.work {
				if err := j.do(f, ctx, key); err != nil {
					select {
					case f.failure <- err:
					default:
					}
				}
			}
		})
	}
	return f, nil
}

// issue issues a key with three writes.
func (f *floor) issue(ctx context.Context, key *v1alpha1.ApiKey) error {
	minted := token.Mint(token.DefaultPrefix)
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	status := v1alpha1.ApiKeyStatus{
		ObservedGeneration: key.Generation, Hash: minted.Digest().String(), TokenHint: minted.Hint(), SecretName: key.Name,
		ExpiresAt: ptr.To(metav1.NewTime(now.AddDate(0, 0, 90))), Expires: now.AddDate(0, 0, 90).UTC().Format(time.RFC3339),
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(v1alpha1.ReasonIssuing),
			Message: "delivering the token", ObservedGeneration: key.Generation, LastTransitionTime: now,
		}},
	}
	committed, err := f.patchStatus(ctx, key, status)
	if err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{"app.kubernetes.io/managed-by": "apikey-operator"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "ApiKey", Name: key.Name, UID: key.UID, Controller: ptr.To(true),
			}},
		},
		Type: v1alpha1.SecretType, Data: map[string][]byte{"token": []byte(minted.Reveal())},
	}
	if _, err := f.secrets.CoreV1().Secrets(key.Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return err
	}
	status.IssuedAt = &now
	status.Conditions[0].Status, status.Conditions[0].Reason = metav1.ConditionTrue, string(v1alpha1.ReasonIssued)
	_, err = f.patchStatus(ctx, committed, status)
	return err
}

// rotate rotates an issued key with three writes and one read.
func (f *floor) rotate(ctx context.Context, key *v1alpha1.ApiKey) error {
	secret, err := f.secrets.CoreV1().Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	minted, request := token.Mint(token.DefaultPrefix), key.Annotations[v1alpha1.AnnotationRotate]
	committed, err := f.patchStatus(ctx, key, map[string]any{"rotation": v1alpha1.ApiKeyRotationStatus{Pending: &v1alpha1.ApiKeyPendingToken{
		Hash: minted.Digest().String(), TokenHint: minted.Hint(), Request: request, Overlap: "24h",
	}}})
	if err != nil {
		return err
	}
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": secret.UID},
		{"op": "test", "path": "/data/token", "value": secret.Data["token"]},
		{"op": "replace", "path": "/data/token", "value": []byte(minted.Reveal())},
	})
	if err != nil {
		return err
	}
	if _, err := f.secrets.CoreV1().Secrets(key.Namespace).Patch(ctx, key.Name, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	_, err = f.patchStatus(ctx, committed, map[string]any{
		"hash": minted.Digest().String(), "tokenHint": minted.Hint(),
		"rotation": map[string]any{
			"pending": nil, "rotatedAt": now, "count": 1, "handledRequests": []string{request},
			"retiring": v1alpha1.ApiKeyRetiringToken{
				Hash: key.Status.Hash, TokenHint: key.Status.TokenHint, RetiresAt: metav1.NewTime(now.Add(24 * time.Hour)),
			},
		},
	})
	return err
}

// patchStatus merges fields into the status of a key, and returns the key.
func (f *floor) patchStatus(ctx context.Context, key *v1alpha1.ApiKey, status any) (*v1alpha1.ApiKey, error) {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": key.ResourceVersion}, "status": status,
	})
	if err != nil {
		return nil, err
	}
	answer := &v1alpha1.ApiKey{}
	return answer, f.keys.Patch(types.MergePatchType).Namespace(key.Namespace).Resource("apikeys").Name(key.Name).
		SubResource("status").Body(body).Do(ctx).Into(answer)
}
