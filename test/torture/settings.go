package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
)

type typesUID = types.UID

const (
	mergePatch     = types.MergePatchType
	continueSignal = syscall.SIGCONT

	// label is the label of namespaces that policies use to select them.
	label = "team"
)

// set applies a setting to a role, a policy or a namespace's label. It changes an object only as it was read, so that an attempt that was
// given up has no effect later.
func (r *run) set(ctx context.Context, subject string, value model.Setting) error {
	kind, name, _ := strings.Cut(subject, "/")
	switch kind {
	case "role":
		role := build.ApiRole(name, value.Includes...)
		found := &v1alpha1.ApiRole{}
		return r.put(ctx, role, found, value.Absent, func() { found.Spec = role.Spec })
	case "policy":
		options := []build.PolicyOption{}
		if value.Selects != "" {
			options = append(options, build.Namespaces(label, v1alpha1.LabelValue(value.Selects)))
		}
		policy := build.Policy(name, value.Roles, options...)
		found := &v1alpha1.ApiKeyPolicy{}
		return r.put(ctx, policy, found, value.Absent, func() { found.Spec = policy.Spec })
	case "label":
		namespace := &corev1.Namespace{}
		namespace.Name = name
		found := &corev1.Namespace{}
		return r.put(ctx, namespace, found, false, func() {
			if found.Labels == nil {
				found.Labels = map[string]string{}
			}
			found.Labels[label] = value.Label
		})
	}
	return fmt.Errorf("unknown setting %s", subject)
}

// put creates, changes or deletes an object.
func (r *run) put(ctx context.Context, wanted, found client.Object, absent bool, change func()) error {
	err := r.admin.Get(ctx, client.ObjectKeyFromObject(wanted), found)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return err
	case err != nil && absent:
		return nil
	case err != nil:
		return r.admin.Create(ctx, wanted)
	case absent:
		uid := found.GetUID()
		return client.IgnoreNotFound(r.admin.Delete(ctx, found, client.Preconditions{UID: &uid}))
	}
	change()
	return r.admin.Update(ctx, found)
}
