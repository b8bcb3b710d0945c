package issuing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// These tests use a fake API server, for answers that are hard to get from a real one. It has no schema and ignores preconditions;
// test/integration runs the reconciler against a real one.

var noonOfTests = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// world is a reconciler with a fake API server that has one key.
type world struct {
	*Reconciler

	t      *testing.T
	server client.WithWatch
	clock  *clocktesting.FakeClock
	events *events.FakeRecorder
	// calls are what the reconciler asks the API server. A test sets those that it changes.
	calls interceptor.Funcs
}

func newWorld(t *testing.T) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	key := &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders", UID: "1", CreationTimestamp: metav1.NewTime(noonOfTests)},
		Spec:       v1alpha1.ApiKeySpec{Roles: []string{"read"}, Expiry: v1alpha1.ApiKeyExpiry{After: "90d"}},
	}
	w := &world{t: t, clock: clocktesting.NewFakeClock(noonOfTests), events: events.NewFakeRecorder(100)}
	w.calls.Create = func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
		object.SetUID("2") // the fake server gives none
		return c.Create(ctx, object, options...)
	}
	w.server = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(key).
		WithObjects(key, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}).Build()
	w.Reconciler = &Reconciler{
		Live: w.server, Rules: rulebook.NewLive(w.server, rulebook.Options{}), Recorder: w.events,
		Metrics: NewMetrics(prometheus.NewRegistry()), Clock: w.clock, Skew: func(context.Context) (time.Duration, error) { return 0, nil },
		TokenPrefix: "ak", TTLAfterExpired: time.Hour, MinRotationEvery: time.Hour,
	}
	return w
}

// pass reconciles the key once.
func (w *world) pass() (ctrl.Result, error) {
	w.t.Helper()
	w.Client = interceptor.NewClient(w.server, w.calls)
	return w.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: "shop", Name: "orders"}})
}

func (w *world) mustPass() {
	w.t.Helper()
	if _, err := w.pass(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) key() *v1alpha1.ApiKey {
	w.t.Helper()
	key := &v1alpha1.ApiKey{}
	if err := w.server.Get(w.t.Context(), client.ObjectKey{Namespace: "shop", Name: "orders"}, key); err != nil {
		w.t.Fatal(err)
	}
	return key
}

// secret returns the token Secret, or nil if there is none.
func (w *world) secret() *corev1.Secret {
	w.t.Helper()
	secret := &corev1.Secret{}
	err := w.server.Get(w.t.Context(), client.ObjectKey{Namespace: "shop", Name: "orders"}, secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

// rotate requests a rotation.
func (w *world) rotate(request string) {
	w.t.Helper()
	key := w.key()
	key.Annotations = map[string]string{v1alpha1.AnnotationRotate: request}
	if err := w.server.Update(w.t.Context(), key); err != nil {
		w.t.Fatal(err)
	}
}

// holdsCurrent reports whether the Secret holds the current token.
func (w *world) holdsCurrent() bool {
	secret, key := w.secret(), w.key()
	return secret != nil && holds(secret, key, key.Status.Hash)
}

func TestIssueAndRotate(t *testing.T) {
	w := newWorld(t)
	w.mustPass()
	first := w.key().Status.Hash
	if w.key().ReadyReason() != v1alpha1.ReasonIssued || !w.holdsCurrent() {
		t.Fatalf("not issued: %+v", w.key().Status)
	}
	w.rotate("1;overlap=1h")
	w.mustPass()
	key := w.key()
	if retiring := key.RetiringToken(); !w.holdsCurrent() || key.Status.Hash == first || retiring == nil || retiring.Hash != first ||
		!retiring.RetiresAt.Time.Equal(noonOfTests.Add(time.Hour)) {
		t.Errorf("not rotated: %+v", key.Status)
	}
	w.clock.Step(time.Hour)
	w.mustPass()
	if w.key().RetiringToken() != nil {
		t.Error("the retiring token was not removed in time")
	}
}

// The overlap begins when the new token is confirmed, and is not shorter because times in a status are whole seconds.
func TestOverlapBeginsAtTheConfirmation(t *testing.T) {
	w := newWorld(t)
	w.mustPass()
	w.rotate("1;overlap=1m")
	w.calls.Patch = func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
		w.clock.Step(10*time.Second + 1)
		return c.Patch(ctx, object, patch, options...)
	}
	w.mustPass()
	if got, want := w.key().RetiringToken().RetiresAt.Time, noonOfTests.Add(71*time.Second); !got.Equal(want) {
		t.Errorf("the old token retires at %s, want %s", got, want)
	}
}

// A CRD of an older release drops status.rotation. Then the Secret must stay as it is: its token would be refused.
func TestOlderCRD(t *testing.T) {
	w := newWorld(t)
	w.mustPass()
	before := w.key().Status
	w.rotate("1")
	w.calls.SubResourcePatch = func(ctx context.Context, c client.Client, name string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
		err := c.SubResource(name).Patch(ctx, object, patch, options...)
		object.(*v1alpha1.ApiKey).Status.Rotation = nil
		return err
	}
	if _, err := w.pass(); err == nil || !strings.Contains(err.Error(), "apply config/crd") {
		t.Errorf("got error %v, want one that says what to do", err)
	}
	if w.key().Status.Hash != before.Hash || !w.holdsCurrent() {
		t.Error("the token was replaced")
	}
}

// An admission plugin may quote the Secret in its answer. Neither the new token nor the old one may get into a status or an event.
func TestRefusedRotationHidesTokens(t *testing.T) {
	w := newWorld(t)
	w.mustPass()
	old := string(w.secret().Data["token"])
	w.rotate("1")
	var minted string
	w.calls.Patch = func(_ context.Context, _ client.WithWatch, object client.Object, patch client.Patch, _ ...client.PatchOption) error {
		text, err := patch.Data(object)
		if err != nil {
			return err
		}
		minted = string(text)
		return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "orders", fmt.Errorf("no: %s, was %s", text, old))
	}
	w.mustPass()
	blocked := w.key().Condition(v1alpha1.ConditionRotationBlocked)
	if blocked == nil || blocked.Reason != string(v1alpha1.ReasonDeliveryRefused) || !strings.Contains(blocked.Message, "[redacted]") {
		t.Fatalf("%+v", blocked)
	}
	parsed, err := token.Parse(old)
	if err != nil {
		t.Fatal("the Secret holds no token")
	}
	if parsed.Redact(blocked.Message) != blocked.Message {
		t.Error("the message has the old token")
	}
	for _, quoted := range strings.Split(minted, `"`) {
		if len(quoted) > 40 && strings.Contains(blocked.Message, quoted) {
			t.Error("the message has a part of the patch")
		}
	}
	// The next attempts ask first, and mint nothing until the answer is another.
	pending := w.key().PendingToken().Hash
	for range 3 {
		w.clock.Step(time.Minute)
		w.mustPass()
	}
	if w.key().PendingToken().Hash != pending {
		t.Error("an attempt that is refused mints a token")
	}
	w.calls.Patch = nil
	w.mustPass()
	if key := w.key(); key.Status.Rotation.Count != 1 || !w.holdsCurrent() || key.Condition(v1alpha1.ConditionRotationBlocked) != nil {
		t.Errorf("not rotated: %+v", key.Status)
	}
}

// A key that was deleted between two requests is not an error. The cache will catch up.
func TestKeyThatIsGone(t *testing.T) {
	w := newWorld(t)
	w.calls.SubResourcePatch = func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
		return apierrors.NewNotFound(schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "apikeys"}, "orders")
	}
	if result, err := w.pass(); err != nil || result.RequeueAfter != time.Second {
		t.Errorf("requeued after %s, %v; want a second", result.RequeueAfter, err)
	}
	if w.secret() != nil {
		t.Error("a Secret exists without a committed digest")
	}
}

func TestDeletionThatFailsHidesTheToken(t *testing.T) {
	w := newWorld(t)
	w.mustPass()
	held := string(w.secret().Data["token"])
	w.clock.Step(90 * 24 * time.Hour)
	w.calls.Delete = func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
		return errors.New("no: " + held)
	}
	_, err := w.pass()
	if err == nil || strings.Contains(err.Error(), held) || !strings.Contains(err.Error(), "[redacted]") {
		t.Errorf("the error is nil or has the token: %t", err == nil)
	}
	if w.key().IsExpired() {
		t.Error("the key is marked although its Secret is left")
	}
}
