package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
)

// watcher records the objects of a kind. After the API server was down, it continues and finds out which objects are gone.
type watcher struct {
	// known are the objects by UID. gone is called with the last known state of a deleted object, and the version of the deletion.
	known map[string]client.Object
	seen  func(client.Object)
	gone  func(client.Object, string)
}

// Add implements [cache.ReflectorStore].
func (w *watcher) Add(object any) error { return w.Update(object) }

// Update implements [cache.ReflectorStore].
func (w *watcher) Update(object any) error {
	o, ok := object.(client.Object)
	if !ok {
		return fmt.Errorf("unexpected %T", object)
	}
	w.known[string(o.GetUID())] = o
	w.seen(o)
	return nil
}

// Delete implements [cache.ReflectorStore].
func (w *watcher) Delete(object any) error {
	o, ok := object.(client.Object)
	if !ok {
		return fmt.Errorf("unexpected %T", object)
	}
	delete(w.known, string(o.GetUID()))
	w.gone(o, o.GetResourceVersion())
	return nil
}

// Replace implements [cache.ReflectorStore].
func (w *watcher) Replace(objects []any, version string) error {
	before := w.known
	w.known = map[string]client.Object{}
	for _, object := range objects {
		o, ok := object.(client.Object)
		if !ok {
			return fmt.Errorf("unexpected %T", object)
		}
		was := before[string(o.GetUID())]
		delete(before, string(o.GetUID()))
		w.known[string(o.GetUID())] = o
		if was == nil || was.GetResourceVersion() != o.GetResourceVersion() {
			w.seen(o)
		}
	}
	for _, o := range before {
		w.gone(o, version)
	}
	return nil
}

// Resync implements [cache.ReflectorStore].
func (w *watcher) Resync() error { return nil }

// follow runs the watcher until the context ends. After a failure it tries again within a second, sooner than a verifier has to.
func (w *watcher) follow(
	ctx context.Context, c client.WithWatch, example client.Object, list func() client.ObjectList, options ...client.ListOption,
) {
	with := func(o metav1.ListOptions) []client.ListOption {
		return append([]client.ListOption{&client.ListOptions{Raw: &o}}, options...)
	}
	reflector := cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.ResourceVersion = "" // the newest, as verifiers ask for
			found := list()
			return found, c.List(ctx, found, with(o)...)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, list(), with(o)...)
		},
	}, example, w, cache.ReflectorOptions{
		Backoff: &wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: 500 * time.Millisecond},
	})
	reflector.RunWithContext(ctx)
}

// observe starts the watches whose events the model uses.
func (r *run) observe(ctx context.Context, c client.WithWatch) {
	keys := &watcher{known: map[string]client.Object{}, seen: r.seeKey, gone: r.loseKey}
	secrets := &watcher{known: map[string]client.Object{}, seen: r.seeSecret, gone: func(client.Object, string) {}}
	roles := &watcher{known: map[string]client.Object{}, gone: func(client.Object, string) {}, seen: func(o client.Object) {
		if o.GetName() == beatName {
			r.note(model.Beat{Kind: "ApiRole", At: now()})
		}
	}}
	r.background.Go(func() {
		keys.follow(ctx, c, &v1alpha1.ApiKey{}, func() client.ObjectList { return &v1alpha1.ApiKeyList{} })
	})
	r.background.Go(func() {
		secrets.follow(ctx, c, &corev1.Secret{}, func() client.ObjectList { return &corev1.SecretList{} },
			client.MatchingFields{"type": v1alpha1.SecretType})
	})
	r.background.Go(func() {
		roles.follow(ctx, c, &v1alpha1.ApiRole{}, func() client.ObjectList { return &v1alpha1.ApiRoleList{} })
	})
}

// keyOf returns what the model knows of an ApiKey.
func keyOf(o *v1alpha1.ApiKey, version string) model.Key {
	k := model.Key{
		At: now(), UID: string(o.UID), Namespace: o.Namespace, Name: o.Name, Roles: o.Spec.Roles, Digest: o.Status.Hash,
		TTL: time.Hour, Kept: o.Annotations[keepAnnotation] == "true", Gone: !o.DeletionTimestamp.IsZero(),
		Suspended: o.IsSuspended(), Lagging: o.Status.ObservedGeneration != o.Generation,
	}
	k.Version, _ = strconv.ParseUint(version, 10, 64)
	for _, cidr := range o.Spec.CIDRs {
		if network, err := netip.ParsePrefix(cidr); err == nil {
			k.Networks = append(k.Networks, network)
		}
	}
	if ttl, err := expiry.ParseDuration(string(o.Spec.TTLAfterExpired)); err == nil {
		k.TTL = ttl
	}
	if o.Status.IssuedAt != nil {
		k.Issued = o.Status.IssuedAt.Time
	}
	if o.Status.ExpiresAt != nil {
		k.Deadline = o.Status.ExpiresAt.Time
	}
	k.Used = o.LastUsedAt()
	if pending := o.PendingToken(); pending != nil {
		k.Pending = pending.Hash
	}
	if retiring := o.RetiringToken(); retiring != nil {
		k.Retiring, k.RetiresAt = retiring.Hash, retiring.RetiresAt.Time
	}
	if rotation := o.Status.Rotation; rotation != nil {
		k.Rotations = int(rotation.Count)
		if rotation.RotatedAt != nil {
			k.RotatedAt = rotation.RotatedAt.Time
		}
	}
	k.Waiting = (o.RotationRequest() != "" || k.Pending != "") && o.Condition(v1alpha1.ConditionRotationBlocked) == nil
	if ready := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		k.Reason = ready.Reason
	}
	return k
}

func (r *run) seeKey(object client.Object) {
	o, ok := object.(*v1alpha1.ApiKey)
	if !ok {
		return
	}
	if o.Name == beatName {
		r.note(model.Beat{Kind: "ApiKey", At: now()})
		if was, ok := r.last(string(o.UID)); ok && was.Reason == model.ReasonIssued {
			return // only the beat has changed
		}
	}
	// A status of an edit that the operators have not answered yet is judged once they have.
	if o.Status.ObservedGeneration == o.Generation && o.DeletionTimestamp.IsZero() {
		for _, breach := range harness.Breaches(o) {
			r.note(model.Finding{At: now(), Text: "a breach of the status contract: " + breach})
		}
	}
	text, err := json.Marshal(o)
	if err == nil {
		_, err = r.statuses.Write(append(text, '\n'))
	}
	if err != nil {
		r.fail(fmt.Errorf("keep what a status was: %w", err))
	}
	r.noteKey(keyOf(o, o.ResourceVersion))
}

func (r *run) loseKey(object client.Object, version string) {
	if o, ok := object.(*v1alpha1.ApiKey); ok {
		k := keyOf(o, version)
		k.Gone = true
		r.noteKey(k)
	}
}

func (r *run) seeSecret(object client.Object) {
	o, ok := object.(*corev1.Secret)
	if !ok {
		return
	}
	s, text := secretOf(o)
	r.note(s)
	if text != "" {
		r.noteToken(s.Digest, text)
	}
}

// secretOf returns what the model knows of a token Secret, and the token.
func secretOf(o *corev1.Secret) (s model.Secret, text string) {
	s = model.Secret{At: now(), Namespace: o.Namespace, Name: o.Name}
	if owner := metav1.GetControllerOf(o); owner != nil {
		s.Owner = string(owner.UID)
	}
	for _, value := range o.Data {
		if t, err := token.Parse(string(value)); err == nil {
			s.Digest, text = t.Digest().String(), string(value)
		}
	}
	return s, text
}
