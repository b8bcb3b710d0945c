package backup

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	operatorLabel, operatorValue = "app.kubernetes.io/name", "apikey-operator"
	leaseName                    = "apikey-operator"
	// scaledBefore is the annotation that records on a Deployment how many replicas it had before a restore.
	scaledBefore = "apikey-operator.io/replicas-before-restore"

	// stopPatience is how long the operators may take to stop.
	stopPatience = 2 * time.Minute
	pollEvery    = 250 * time.Millisecond
)

// operators are the operators of the cluster, which a restore stops.
type operators struct {
	client client.Client
	// stopped are the Deployments that this restore, or an earlier one that was interrupted, has scaled to zero.
	stopped []types.NamespacedName
}

// pods returns the names of the pods of operators that may still run.
func (o *operators) pods(ctx context.Context) ([]string, error) {
	list := &corev1.PodList{}
	if err := o.client.List(ctx, list, client.MatchingLabels{operatorLabel: operatorValue}); err != nil {
		return nil, err
	}
	var names []string
	for _, pod := range list.Items {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			names = append(names, pod.Namespace+"/"+pod.Name)
		}
	}
	return names, nil
}

// leases returns the leases of operators that somebody holds, each with when it was renewed.
func (o *operators) leases(ctx context.Context) (map[types.NamespacedName]coordinationv1.LeaseSpec, error) {
	list := &coordinationv1.LeaseList{}
	if err := o.client.List(ctx, list); err != nil {
		return nil, err
	}
	held := map[types.NamespacedName]coordinationv1.LeaseSpec{}
	for _, lease := range list.Items {
		if lease.Name == leaseName && ptr.Deref(lease.Spec.HolderIdentity, "") != "" {
			held[client.ObjectKeyFromObject(&lease)] = lease.Spec
		}
	}
	return held, nil
}

// deployments returns the Deployments of operators that have replicas, and remembers those that an earlier restore has stopped.
func (o *operators) deployments(ctx context.Context) ([]appsv1.Deployment, error) {
	list := &appsv1.DeploymentList{}
	if err := o.client.List(ctx, list, client.MatchingLabels{operatorLabel: operatorValue}); err != nil {
		return nil, err
	}
	o.stopped = nil
	var running []appsv1.Deployment
	for _, d := range list.Items {
		if _, was := d.Annotations[scaledBefore]; was {
			o.stopped = append(o.stopped, client.ObjectKeyFromObject(&d))
		}
		if ptr.Deref(d.Spec.Replicas, 1) > 0 {
			running = append(running, d)
		}
	}
	return running, nil
}

// stop scales the Deployments to zero. Each records in the same write how many replicas it had.
func (o *operators) stop(ctx context.Context, running []appsv1.Deployment) error {
	for i := range running {
		d := &running[i]
		changed := d.DeepCopy()
		if _, was := d.Annotations[scaledBefore]; !was {
			if changed.Annotations == nil {
				changed.Annotations = map[string]string{}
			}
			changed.Annotations[scaledBefore] = strconv.Itoa(int(ptr.Deref(d.Spec.Replicas, 1)))
			o.stopped = append(o.stopped, client.ObjectKeyFromObject(d))
		}
		changed.Spec.Replicas = ptr.To[int32](0)
		if err := o.client.Patch(ctx, changed, client.MergeFrom(d)); err != nil {
			return fmt.Errorf("stop deployment %s/%s: %w", d.Namespace, d.Name, err)
		}
	}
	return nil
}

// proveStopped returns nil once no pod of an operator is left, and each lease is free or was not renewed for as long as it is valid.
func (o *operators) proveStopped(ctx context.Context, say func(string, ...any)) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	why := "the pods of operators can't be listed"
	seen := map[types.NamespacedName]coordinationv1.LeaseSpec{}
	since := map[types.NamespacedName]time.Time{}
	told := false
	err := wait.PollUntilContextCancel(ctx, pollEvery, true, func(ctx context.Context) (bool, error) {
		pods, err := o.pods(ctx)
		if err != nil {
			return false, err
		}
		held, err := o.leases(ctx)
		if err != nil {
			return false, err
		}
		if len(pods) > 0 {
			why = "these pods run: " + strings.Join(pods, ", ")
			clear(seen) // a lease counts only from when no pod is left
			return false, nil
		}
		now := time.Now()
		for name, lease := range held {
			if last, ok := seen[name]; !ok || !last.RenewTime.Equal(lease.RenewTime) || *last.HolderIdentity != *lease.HolderIdentity {
				seen[name], since[name] = lease, now
			}
			validity := time.Duration(ptr.Deref(lease.LeaseDurationSeconds, 15)) * time.Second
			if now.Sub(since[name]) > validity {
				continue
			}
			why = fmt.Sprintf("%s holds the lease %s and may renew it: does an operator run outside of the cluster, or under another label?", *lease.HolderIdentity, name)
			if !told {
				told = true
				say("Lease %s was not given up. Waiting %s to see that nobody renews it.", name, validity)
			}
			return false, nil
		}
		return true, nil
	})
	if err != nil && wait.Interrupted(err) && ctx.Err() != nil {
		return fmt.Errorf("an operator may still run: %s", why)
	}
	return err
}

// stayStopped says which operators a restore leaves stopped, or returns nil if there are none.
func (o *operators) stayStopped() error {
	if len(o.stopped) == 0 {
		return nil
	}
	var names []string
	for _, name := range o.stopped {
		names = append(names, name.String())
	}
	return fmt.Errorf("the operators stay stopped, so that no key is issued or deleted: %s. "+
		"Fix the cause and run this command again: it starts them", strings.Join(names, ", "))
}

// start gives the Deployments their replicas back.
func (o *operators) start(ctx context.Context) error {
	for _, name := range o.stopped {
		d := &appsv1.Deployment{}
		if err := o.client.Get(ctx, name, d); err != nil {
			return fmt.Errorf("start deployment %s: %w", name, err)
		}
		replicas, err := strconv.ParseInt(d.Annotations[scaledBefore], 10, 32)
		if err != nil || replicas < 0 {
			replicas = 1
		}
		changed := d.DeepCopy()
		delete(changed.Annotations, scaledBefore)
		changed.Spec.Replicas = ptr.To(int32(replicas))
		if err := o.client.Patch(ctx, changed, client.MergeFrom(d)); err != nil {
			return fmt.Errorf("start deployment %s: %w", name, err)
		}
	}
	return nil
}
