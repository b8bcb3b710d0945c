package docs

import (
	"context"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// held is a finalizer that keeps a pod until its process has stopped, as a kubelet would.
const held = "apikey-operator.io/docs-test"

// nodePatience is how long the first pods and processes may take on a busy machine. A process that doesn't become ready fails after three minutes.
const nodePatience = 4 * time.Minute

// node stands in for a kubelet, for the pods of some Deployments in a namespace. Each Deployment has one process, which runs as long as the
// Deployment has a pod.
type node struct {
	namespace string
	clients   *kubernetes.Clientset
	start     map[string]func(context.Context) (*controlplane.Process, error)
	processes map[string]*controlplane.Process
}

// startNode starts a node and returns when a process of each Deployment runs. start holds a function for each Deployment, by the pods' label
// app.kubernetes.io/name. The test fails if they don't run after [nodePatience]. What fails later is logged and tried again.
func startNode(
	ctx context.Context, t *testing.T, plane *controlplane.ControlPlane, namespace string,
	start map[string]func(context.Context) (*controlplane.Process, error),
) {
	t.Helper()
	clients, err := kubernetes.NewForConfig(plane.Admin)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{namespace: namespace, clients: clients, start: start, processes: map[string]*controlplane.Process{}}
	ctx, cancel := context.WithCancel(ctx)
	done, ready := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
		for _, process := range n.processes {
			_ = process.Stop()
		}
	})
	go func() {
		defer close(done)
		announced := false
		for ctx.Err() == nil {
			for name := range start {
				// It tries again, as a kubelet does. A pod may change or disappear between reading and patching it.
				if err := n.sync(ctx, name); err != nil && ctx.Err() == nil {
					t.Logf("%s: %v", name, err)
				}
			}
			if !announced && len(n.processes) == len(start) {
				close(ready)
				announced = true
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	select {
	case <-ready:
	case <-time.After(nodePatience):
		t.Fatalf("the processes of %s do not run", namespace)
	}
}

func (n *node) sync(ctx context.Context, name string) error {
	pods, err := n.clients.CoreV1().Pods(n.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + name})
	if err != nil {
		return err
	}
	live := slices.ContainsFunc(pods.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp == nil })
	process := n.processes[name]
	if live && process == nil {
		if process, err = n.start[name](ctx); err != nil {
			return err
		}
		n.processes[name] = process
	}
	if !live && process != nil {
		_ = process.Stop() // the exit status doesn't matter here
		delete(n.processes, name)
	}
	for i := range pods.Items {
		if err := n.tell(ctx, &pods.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// tell updates a pod as a kubelet would.
func (n *node) tell(ctx context.Context, pod *corev1.Pod) error {
	pods := n.clients.CoreV1().Pods(pod.Namespace)
	patch := func(patch string, subresources ...string) error {
		_, err := pods.Patch(ctx, pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresources...)
		return err
	}
	switch isHeld := slices.Contains(pod.Finalizers, held); {
	case pod.DeletionTimestamp != nil && isHeld:
		return patch(`{"metadata":{"finalizers":null}}`)
	case pod.DeletionTimestamp == nil && !isHeld:
		if err := patch(`{"metadata":{"finalizers":["` + held + `"]}}`); err != nil {
			return err
		}
		return patch(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, "status")
	}
	return nil
}
