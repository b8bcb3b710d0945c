package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

// start starts everything that a run needs.
func (r *run) start(ctx context.Context) error {
	quiet := logr.Discard()
	ctrl.SetLogger(quiet)
	klog.SetLogger(quiet)
	var err error
	if r.plane, err = controlplane.Start(ctx, controlplane.Options{Logs: filepath.Join(r.folder, "controlplane")}); err != nil {
		return err
	}
	if err := r.plane.Install(ctx); err != nil {
		return err
	}
	if r.admin, err = client.NewWithWatch(r.plane.Admin, client.Options{Scheme: harness.Scheme()}); err != nil {
		return err
	}
	if r.statuses, err = r.log("statuses"); err != nil {
		return err
	}
	if err := r.furnish(ctx); err != nil {
		return err
	}
	r.observe(ctx, r.admin)
	if err := r.startProcesses(ctx); err != nil {
		return err
	}
	for _, name := range plan.Verifiers {
		if r.askers[name], err = r.newAsker(name); err != nil {
			return err
		}
	}
	return nil
}

// furnish makes the namespaces, roles and policies that a run begins with, and a caller who may introspect.
func (r *run) furnish(ctx context.Context) error {
	for _, namespace := range plan.Namespaces {
		if err := r.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
			return err
		}
	}
	for name, value := range plan.Initial() {
		asked := now()
		if err := r.until(ctx, func(ctx context.Context) error { return r.set(ctx, name, value) }); err != nil {
			return err
		}
		r.note(model.Operation{Kind: plan.Edit, Subject: name, Asked: asked, Answered: now(), Value: &value})
	}
	namespace := plan.Namespaces[0]
	for _, object := range []client.Object{
		build.ApiRole(beatName),
		build.ApiKey(namespace, beatName, build.Roles("shop.read"), build.Never()),
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "torture-introspects"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "default"}},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "apikey-introspector"},
		},
	} {
		if err := r.admin.Create(ctx, object); err != nil {
			return err
		}
	}
	caller, err := r.plane.As(ctx, namespace, "default")
	if err != nil {
		return err
	}
	r.caller = caller.BearerToken
	return nil
}

// stop ends everything.
func (r *run) stop() error {
	var errs []error
	for _, s := range r.processes {
		s.stop()
	}
	if r.plane != nil {
		for _, component := range components {
			_ = r.plane.Signal(component, continueSignal) // it may be dead
		}
		errs = append(errs, r.plane.Stop())
	}
	for _, file := range r.files {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
