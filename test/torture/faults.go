package main

import (
	"context"
	"fmt"
	"io"
	"syscall"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

// components are the kit's names of the parts of the control plane.
var components = map[string]string{model.APIServer: controlplane.APIServer, model.Etcd: controlplane.EtcdName}

// fault does something to a process for as long as the step says, and records when.
func (r *run) fault(ctx context.Context, step plan.Step, begin func() error, end func() error, ready func(context.Context) error) {
	fault := model.Fault{Kind: step.Kind, Target: step.Subject, From: now(), Offset: step.Offset}
	open := r.open(fault)
	if err := begin(); err != nil {
		r.fail(fmt.Errorf("%s %s: %w", step.Kind, step.Subject, err))
		return
	}
	pause(ctx, step.For)
	fault.Back = now()
	if err := end(); err != nil {
		r.fail(fmt.Errorf("end of %s %s: %w", step.Kind, step.Subject, err))
		return
	}
	if err := ready(ctx); err != nil {
		r.fail(fmt.Errorf("%s is not ready after %s: %w", step.Subject, step.Kind, err))
		return
	}
	fault.To = now()
	r.closeFault(open, fault)
}

func (r *run) disturb(ctx context.Context, step plan.Step) {
	component, isPlane := components[step.Subject]
	if isPlane {
		r.disturbPlane(ctx, step, component)
		return
	}
	s := r.processes[step.Subject]
	switch step.Kind {
	case plan.Pause:
		r.fault(ctx, step, func() error { s.signal(syscall.SIGSTOP); return nil }, func() error { s.signal(syscall.SIGCONT); return nil }, ready)
	case plan.Kill:
		r.fault(ctx, step, func() error { s.kill(); return nil }, func() error { return s.begin(ctx) }, ready)
	}
}

func (r *run) disturbPlane(ctx context.Context, step plan.Step, component string) {
	answers := func(ctx context.Context) error {
		return r.until(ctx, func(ctx context.Context) error {
			return r.admin.Get(ctx, client.ObjectKey{Name: plan.Namespaces[0]}, &corev1.Namespace{})
		})
	}
	switch step.Kind {
	case plan.Pause:
		r.fault(ctx, step,
			func() error { return r.plane.Signal(component, syscall.SIGSTOP) },
			func() error { return r.plane.Signal(component, syscall.SIGCONT) }, answers)
	case plan.Kill:
		start := r.plane.StartAPIServer
		if component == controlplane.EtcdName {
			start = r.plane.StartEtcd
		}
		r.fault(ctx, step, func() error { return r.plane.Kill(ctx, component) }, start, answers)
	}
}

// jump sets the clock of the operator that runs in this program's binary.
func (r *run) jump(ctx context.Context, step plan.Step) {
	set := func(offset string) func() error {
		return func() error {
			r.mu.Lock()
			defer r.mu.Unlock()
			_, _ = io.WriteString(r.clock, offset+"\n") // one that is dead has a right clock when it starts again
			return nil
		}
	}
	r.fault(ctx, step, set(step.Offset.String()), set("0s"), ready)
}

// stealLease makes the leader lose its lease.
func (r *run) stealLease(ctx context.Context, step plan.Step) {
	r.fault(ctx, step, func() error {
		return r.until(ctx, func(ctx context.Context) error {
			lease := &coordinationv1.Lease{}
			if err := r.admin.Get(ctx, client.ObjectKey{Namespace: controlplane.Namespace, Name: leaseName}, lease); err != nil {
				return client.IgnoreNotFound(err)
			}
			lease.Spec.HolderIdentity = ptr.To("torture")
			lease.Spec.LeaseDurationSeconds = ptr.To[int32](1)
			lease.Spec.RenewTime = &metav1.MicroTime{Time: now()}
			return r.admin.Update(ctx, lease)
		})
	}, func() error { return nil }, ready)
}

// fillQuota allows no further Secret in a namespace for a while.
func (r *run) fillQuota(ctx context.Context, step plan.Step) {
	quota := func() *corev1.ResourceQuota {
		return &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: step.Subject, Name: "full"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("0")}},
		}
	}
	r.fault(ctx, step, func() error {
		return r.until(ctx, func(ctx context.Context) error { return ignoreExists(r.admin.Create(ctx, quota())) })
	}, func() error {
		return r.until(ctx, func(ctx context.Context) error { return client.IgnoreNotFound(r.admin.Delete(ctx, quota())) })
	}, ready)
}

// plantSecret puts a Secret where the next key's should be. It is deleted after a while. planted is called once the Secret exists.
func (r *run) plantSecret(ctx context.Context, step plan.Step, planted func()) {
	namespace, name := plan.Split(step.Subject)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: map[string]string{"token": "planted"}}
	r.fault(ctx, step, func() error {
		defer planted()
		return r.until(ctx, func(ctx context.Context) error {
			err := r.admin.Create(ctx, secret)
			if apierrors.IsAlreadyExists(err) { // that of the key before has not gone yet, or a try before this one was heard
				return r.admin.Get(ctx, client.ObjectKeyFromObject(secret), secret)
			}
			return err
		})
	}, func() error {
		return r.until(ctx, func(ctx context.Context) error {
			if secret.Type != corev1.SecretTypeOpaque {
				return nil // it is an operator's
			}
			err := r.admin.Delete(ctx, secret, client.Preconditions{UID: &secret.UID})
			if apierrors.IsConflict(err) {
				return nil // it has gone, and a key's has come
			}
			return client.IgnoreNotFound(err)
		})
	}, ready)
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
