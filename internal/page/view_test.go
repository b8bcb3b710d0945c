package page

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/page/gate"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *metav1.Time {
	at := metav1.NewTime(now.Add(-d))
	return &at
}

func testPage() *page {
	return &page{gate: gate.New("127.0.0.1:1", now), now: func() time.Time { return now }}
}

// rotated is an issued key in the overlap of a rotation.
func rotated() *v1alpha1.ApiKey {
	return &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", CreationTimestamp: *ago(48 * time.Hour)},
		Spec:       v1alpha1.ApiKeySpec{Roles: []string{"a"}, Expiry: v1alpha1.ApiKeyExpiry{Never: new(true)}},
		Status: v1alpha1.ApiKeyStatus{
			Hash: "sha256:new", TokenHint: "ak_new", IssuedAt: ago(48 * time.Hour), LastUsedAt: ago(3 * time.Hour),
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: string(v1alpha1.ReasonIssued)}},
			Rotation: &v1alpha1.ApiKeyRotationStatus{
				RotatedAt: ago(time.Hour),
				Retiring:  &v1alpha1.ApiKeyRetiringToken{Hash: "sha256:old", TokenHint: "ak_old", RetiresAt: *ago(-23 * time.Hour), LastUsedAt: ago(5 * time.Minute)},
			},
		},
	}
}

// html returns a view of a key as it is sent.
func html(t *testing.T, name string, key *v1alpha1.ApiKey) string {
	t.Helper()
	p := testPage()
	data := any(shell{Base: "/x/", Data: p.viewOf(&keys.Description{Key: key})})
	if name != "key" {
		data = question{view: p.viewOf(&keys.Description{Key: key}), Action: strings.TrimPrefix(name, "ask-")}
	}
	text, err := fragment(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestViewTellsUseAndTokens(t *testing.T) {
	text := html(t, "key", rotated())
	for _, want := range []string{"3 hours ago", "ak_new…", "Current", "ak_old…", "Ends <time", "in 23 hours", "Last used <time", "5 minutes ago"} {
		if !strings.Contains(text, want) {
			t.Errorf("the view lacks %q", want)
		}
	}
	if text := html(t, "ask-retire", rotated()); !strings.Contains(text, "the token ak_old… is refused") || !strings.Contains(text, "5 minutes ago") {
		t.Errorf("the question does not say what breaks:\n%s", text)
	}
	if text := html(t, "ask-delete", rotated()); !strings.Contains(text, "It was last used <time") {
		t.Errorf("the question does not say when the key was used:\n%s", text)
	}
}

// That no use is on record does not prove that there was none, and no text may say so.
func TestUnseenUseIsNotNever(t *testing.T) {
	key := rotated()
	key.Status.LastUsedAt, key.Status.Rotation.Retiring.LastUsedAt = nil, nil
	for _, name := range []string{"key", "ask-delete", "ask-suspend", "ask-retire"} {
		text := html(t, name, key)
		if !strings.Contains(text, "does not prove") || strings.Contains(strings.ReplaceAll(text, "does not prove that it was never used", ""), "never used") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	row, err := fragment("row", testPage().rowOf(key, now))
	if err != nil || !strings.Contains(row, "Not seen") || !strings.Contains(row, `data-used="0"`) {
		t.Errorf("row (%v):\n%s", err, row)
	}
}

func TestTokensOf(t *testing.T) {
	key := rotated()
	key.Status.Rotation.Pending = &v1alpha1.ApiKeyPendingToken{Hash: "sha256:next", TokenHint: "ak_next"}
	lines := tokensOf(key, now)
	states := make([]string, 0, len(lines))
	for _, line := range lines {
		states = append(states, line.Hint+" "+line.State)
	}
	if want := []string{"ak_new current", "ak_next pending", "ak_old retiring"}; !slices.Equal(states, want) {
		t.Errorf("%q", states)
	}
}

func TestOverlapOf(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		spec *v1alpha1.ApiKeyRotation
		want time.Duration
	}{
		{nil, day}, {&v1alpha1.ApiKeyRotation{Every: "30d"}, day}, {&v1alpha1.ApiKeyRotation{Every: "2h"}, time.Hour},
		{&v1alpha1.ApiKeyRotation{Every: "30d", Overlap: "0s"}, 0}, {&v1alpha1.ApiKeyRotation{Overlap: "7d"}, 7 * day},
	} {
		if got := overlapOf(c.spec); got != c.want {
			t.Errorf("%v: %s, want %s", c.spec, got, c.want)
		}
	}
}

func TestInWords(t *testing.T) {
	for d, want := range map[v1alpha1.Duration]string{"90d": "90 days", "15m": "15 minutes", "24h": "24 hours", "1d12h": "36 hours", "soon": "soon"} {
		if got := inWords(d); got != want {
			t.Errorf("%s is %q, and should be %q", d, got, want)
		}
	}
}
