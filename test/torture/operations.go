package main

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

func (r *run) create(ctx context.Context, step plan.Step) {
	namespace, name := plan.Split(step.Subject)
	options := []build.Option{build.Roles(step.Spec.Roles...), build.TTL(seconds(step.Spec.TTL)), build.Never()}
	if step.Spec.Life > 0 {
		options = append(options, build.After(seconds(step.Spec.Life)))
	}
	if len(step.Spec.Networks) > 0 {
		options = append(options, build.CIDRs(step.Spec.Networks...))
	}
	if step.Spec.Reveal > 0 {
		options = append(options, build.Secret(v1alpha1.ApiKeySecret{RevealFor: seconds(step.Spec.Reveal)}))
	}
	if step.Spec.Suspended {
		options = append(options, build.Suspended())
	}
	r.createKey(ctx, build.ApiKey(namespace, name, options...))
}

func seconds(d time.Duration) v1alpha1.Duration {
	return v1alpha1.Duration(fmt.Sprintf("%ds", int(d.Seconds())))
}

func (r *run) createKey(ctx context.Context, key *v1alpha1.ApiKey) {
	subject := key.Namespace + "/" + key.Name
	r.operate(ctx, model.Operation{Kind: plan.Create, Subject: subject}, func(ctx context.Context) error {
		wanted := key.DeepCopy()
		if err := r.admin.Create(ctx, wanted); err != nil {
			if !apierrors.IsAlreadyExists(err) {
				return err
			}
			// An earlier attempt succeeded without an answer.
			if err := r.admin.Get(ctx, client.ObjectKeyFromObject(key), wanted); err != nil {
				return err
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.uids[subject] = string(wanted.UID)
		return nil
	})
}

func (r *run) uidOf(subject string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.uids[subject]
}

func (r *run) delete(ctx context.Context, subject string) {
	namespace, name := plan.Split(subject)
	uid := r.uidOf(subject)
	r.operate(ctx, model.Operation{Kind: plan.Delete, Subject: subject, UID: uid}, func(ctx context.Context) error {
		err := r.admin.Delete(ctx, build.ApiKey(namespace, name), client.Preconditions{UID: (*typesUID)(&uid)})
		if apierrors.IsConflict(err) {
			return nil // another key has the name now
		}
		return client.IgnoreNotFound(err)
	})
}

// turn suspends or resumes a key.
func (r *run) turn(ctx context.Context, step plan.Step) {
	r.change(ctx, step, func(key *v1alpha1.ApiKey) { key.Spec.Suspend = ptr.To(step.Kind == plan.Suspend) })
}

// request requests a rotation, or the end of the retiring token.
func (r *run) request(ctx context.Context, step plan.Step) {
	name := v1alpha1.AnnotationRotate
	if step.Kind == plan.Retire {
		name = v1alpha1.AnnotationRetire
	}
	r.change(ctx, step, func(key *v1alpha1.ApiKey) { metav1.SetMetaDataAnnotation(&key.ObjectMeta, name, step.Request) })
}

// change edits a key. It changes the key only as it was read, so that an attempt that was given up has no effect later.
func (r *run) change(ctx context.Context, step plan.Step, edit func(*v1alpha1.ApiKey)) {
	namespace, name := plan.Split(step.Subject)
	uid := r.uidOf(step.Subject)
	operation := model.Operation{Kind: step.Kind, Subject: step.Subject, UID: uid, Overlap: step.Overlap}
	r.operate(ctx, operation, func(ctx context.Context) error {
		key := &v1alpha1.ApiKey{}
		err := r.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, key)
		if err != nil || string(key.UID) != uid {
			return client.IgnoreNotFound(err) // it has expired and gone
		}
		edit(key)
		return client.IgnoreNotFound(r.admin.Update(ctx, key))
	})
}

// mark changes an annotation without a meaning, or the one that keeps a key.
func (r *run) mark(ctx context.Context, step plan.Step) {
	namespace, name := plan.Split(step.Subject)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"torture":%q}}}`, now())
	if step.Kind == plan.Keep {
		value := "null"
		if step.On {
			value = `"true"`
		}
		patch = fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, keepAnnotation, value)
	}
	r.operate(ctx, model.Operation{Kind: step.Kind, Subject: step.Subject}, func(ctx context.Context) error {
		err := r.admin.Patch(ctx, build.ApiKey(namespace, name), client.RawPatch(mergePatch, []byte(patch)))
		return client.IgnoreNotFound(err) // it may have expired and gone
	})
}
