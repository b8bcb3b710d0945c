package facts_test

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
)

type rotationStatus = v1alpha1.ApiKeyRotationStatus

const (
	pendingHash  = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	retiringHash = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

// rotating returns an issued key that expires tomorrow, with every field of status.rotation.
func rotating() *v1alpha1.ApiKey {
	return &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *at(born)},
		Spec:       v1alpha1.ApiKeySpec{Expiry: expiry{After: "90d"}},
		Status: status{
			Hash: hash, IssuedAt: at(noon), ExpiresAt: at(noon.Add(day)), Conditions: ready(v1alpha1.ReasonIssued),
			Rotation: &rotationStatus{
				RotatedAt: at(noon.Add(time.Minute)), NextAt: at(noon.Add(2 * time.Hour)), HandledRequests: []string{"old"}, HandledRetirements: []string{"old"},
				Pending:  &v1alpha1.ApiKeyPendingToken{Hash: pendingHash, Request: "current", Overlap: "1h"},
				Retiring: &v1alpha1.ApiKeyRetiringToken{Hash: retiringHash, RetiresAt: *at(noon.Add(time.Hour))},
			},
		},
	}
}

func TestRotation(t *testing.T) {
	known, err := facts.Of(rotating(), day)
	if err != nil || known.Rotation != (lifecycle.Rotation{Begun: true, Retiring: true}) {
		t.Errorf("%+v, %v", known.Rotation, err)
	}
	if !known.RotatedAt.Equal(noon.Add(time.Minute)) || !known.NextRotationAt.Equal(noon.Add(2*time.Hour)) || !known.RetiresAt.Equal(noon.Add(time.Hour)) {
		t.Errorf("rotated %s, next %s, retires %s", known.RotatedAt, known.NextRotationAt, known.RetiresAt)
	}
	for name, c := range map[string]struct {
		annotation, value string
		want              lifecycle.Rotation
		invalid           string
	}{
		"none":                  {"", "", lifecycle.Rotation{}, ""},
		"a request":             {v1alpha1.AnnotationRotate, "new", lifecycle.Rotation{Requested: true}, ""},
		"one with an overlap":   {v1alpha1.AnnotationRotate, "new;overlap=1h", lifecycle.Rotation{Requested: true}, ""},
		"one without overlap":   {v1alpha1.AnnotationRotate, "new;overlap=0s", lifecycle.Rotation{Requested: true, AtOnce: true}, ""},
		"one that was handled":  {v1alpha1.AnnotationRotate, "old", lifecycle.Rotation{}, ""},
		"one that was begun":    {v1alpha1.AnnotationRotate, "current", lifecycle.Rotation{}, ""},
		"an invalid one":        {v1alpha1.AnnotationRotate, "new;overlap=x", lifecycle.Rotation{}, "annotation apikey-operator.io/rotate: "},
		"a retirement":          {v1alpha1.AnnotationRetire, "new", lifecycle.Rotation{RetireRequested: true}, ""},
		"a handled retirement":  {v1alpha1.AnnotationRetire, "old", lifecycle.Rotation{}, ""},
		"the other's":           {v1alpha1.AnnotationRetire, "current", lifecycle.Rotation{RetireRequested: true}, ""},
		"an invalid retirement": {v1alpha1.AnnotationRetire, "1;overlap=1h", lifecycle.Rotation{}, "annotation apikey-operator.io/retire: "},
	} {
		key := rotating()
		key.Annotations = map[string]string{c.annotation: c.value}
		c.want.Begun, c.want.Retiring = true, true
		if got := facts.Record(key).Rotation; got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		err := facts.InvalidRequest(key)
		if (err != nil) != (c.invalid != "") || err != nil && !strings.HasPrefix(err.Error(), c.invalid) {
			t.Errorf("%s: %v, want %q", name, err, c.invalid)
		}
	}
	blocked := rotating()
	blocked.Status.Conditions = append(blocked.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionRotationBlocked, LastTransitionTime: *at(noon)})
	if got := facts.Record(blocked).Rotation; !got.Blocked || !got.BlockedSince.Equal(noon) {
		t.Errorf("blocked: %+v", got)
	}
	blocked.Status.Conditions[1].Reason = string(v1alpha1.ReasonWaiting)
	if got := facts.Record(blocked).Rotation; got.Blocked {
		t.Error("a rotation that waits for its time counts as blocked")
	}
}

// Verifiers know three tokens of a key at most, and none of them for longer than the key lives.
func TestCredentials(t *testing.T) {
	in := func(d time.Duration) time.Time { return noon.Add(d) }
	for name, c := range map[string]struct {
		change func(*v1alpha1.ApiKey)
		want   map[string]time.Time
	}{
		"all": {func(*v1alpha1.ApiKey) {}, map[string]time.Time{hash: in(day), pendingHash: in(day), retiringHash: in(time.Hour)}},
		"a deadline within the overlap": {func(k *v1alpha1.ApiKey) { k.Status.ExpiresAt = at(in(time.Minute)) },
			map[string]time.Time{hash: in(time.Minute), pendingHash: in(time.Minute), retiringHash: in(time.Minute)}},
		"marked as expired": {func(k *v1alpha1.ApiKey) { k.Status.Conditions = ready(v1alpha1.ReasonExpired) },
			map[string]time.Time{hash: {}, pendingHash: {}, retiringHash: {}}},
		"never rotated":    {func(k *v1alpha1.ApiKey) { k.Status.Rotation = nil }, map[string]time.Time{hash: in(day)}},
		"being deleted":    {func(k *v1alpha1.ApiKey) { k.DeletionTimestamp = at(noon) }, map[string]time.Time{}},
		"without a digest": {func(k *v1alpha1.ApiKey) { k.Status.Hash = "" }, map[string]time.Time{}},
		"without an end": {func(k *v1alpha1.ApiKey) { k.Status.Rotation.Retiring.RetiresAt = metav1.Time{} },
			map[string]time.Time{hash: in(day), pendingHash: in(day), retiringHash: {}}},
	} {
		key := rotating()
		c.change(key)
		all, err := facts.Credentials(key)
		if err != nil || len(all) != len(c.want) {
			t.Errorf("%s: %+v, %v", name, all, err)
		}
		for _, credential := range all {
			want, known := c.want[credential.Hash]
			if until, expires := credential.Deadline.Time(); !known || !expires || !until.Equal(want) {
				t.Errorf("%s: %s until %s, want %s", name, credential.Field, until, want)
			}
		}
	}
}

func TestOverlapAndEvery(t *testing.T) {
	for name, c := range map[string]struct {
		spec                 *v1alpha1.ApiKeyRotation
		wantEvery, wantOverl time.Duration
	}{
		"none":                    {nil, 0, day},
		"on request only":         {&v1alpha1.ApiKeyRotation{Overlap: "0s"}, 0, 0},
		"a schedule":              {&v1alpha1.ApiKeyRotation{Every: "30d", Overlap: "2h"}, 30 * day, 2 * time.Hour},
		"shorter than is allowed": {&v1alpha1.ApiKeyRotation{Every: "1m"}, time.Hour, 30 * time.Minute},
	} {
		key := &v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Rotation: c.spec}}
		every, err := facts.Every(key, time.Hour)
		if err != nil || every != c.wantEvery {
			t.Errorf("%s: every %s, %v; want %s", name, every, err, c.wantEvery)
		}
		if overlap, err := facts.Overlap(key, time.Hour); err != nil || overlap != c.wantOverl {
			t.Errorf("%s: overlap %s, %v; want %s", name, overlap, err, c.wantOverl)
		}
	}
	for field, spec := range map[string]v1alpha1.ApiKeyRotation{"spec.rotation.every": {Every: "soon"}, "spec.rotation.overlap": {Overlap: "soon"}} {
		if _, err := facts.Overlap(&v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Rotation: &spec}}, time.Hour); !names(err, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// The Secret of a rotation is visible for as long as that of the issue.
func TestWithdrawAtAfterARotation(t *testing.T) {
	key := rotating()
	key.Spec.Secret = &secret{RevealFor: "15m"}
	if known, err := facts.Of(key, day); err != nil || !known.WithdrawAt.Equal(noon.Add(16*time.Minute)) {
		t.Errorf("%s, %v", known.WithdrawAt, err)
	}
}

// A cached key keeps requests, but no more of them than is needed to see that they are invalid.
func TestTrimKeepsRequests(t *testing.T) {
	for _, value := range []string{"1", strings.Repeat("x", 100_000)} {
		key := rotating()
		key.Annotations = map[string]string{
			v1alpha1.AnnotationRotate: value, v1alpha1.AnnotationRetire: value, v1alpha1.AnnotationKeep: "true", "note": "long",
		}
		before, keeper := facts.Record(key).Rotation, facts.KeptBy(key)
		facts.Trim(key)
		if facts.Record(key).Rotation != before || facts.KeptBy(key) != keeper || len(key.Annotations) != 3 {
			t.Errorf("%d bytes: %+v, want %+v; kept by %q", len(value), facts.Record(key).Rotation, before, facts.KeptBy(key))
		}
		if n := len(key.Annotations[v1alpha1.AnnotationRotate]); n > 200 {
			t.Errorf("%d bytes are kept", n)
		}
	}
}
