package recording

import (
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/usage"
)

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func at(offset time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(noon.Add(offset))) }

func TestChanges(t *testing.T) {
	const now = 10 * time.Hour // after noon, when the key was issued
	rotated := func(used *metav1.Time) *v1alpha1.ApiKeyRotationStatus {
		return &v1alpha1.ApiKeyRotationStatus{Retiring: &v1alpha1.ApiKeyRetiringToken{Hash: "old", RetiresAt: *at(24 * time.Hour), LastUsedAt: used}}
	}
	for name, c := range map[string]struct {
		status v1alpha1.ApiKeyStatus
		used   time.Duration
		old    string
		want   string
	}{
		"first use":          {used: time.Hour, want: `{"lastUsedAt":"2027-01-31T13:00:00Z"}`},
		"a fraction":         {used: time.Hour + 999*time.Millisecond, want: `{"lastUsedAt":"2027-01-31T13:00:00Z"}`},
		"in the future":      {used: now + 24*time.Hour, want: `{"lastUsedAt":"2027-01-31T22:00:00Z"}`},
		"before issue":       {used: -24 * time.Hour, want: `{"lastUsedAt":"2027-01-31T12:00:00Z"}`},
		"an hour later":      {status: v1alpha1.ApiKeyStatus{LastUsedAt: at(time.Hour)}, used: 2 * time.Hour, want: `{"lastUsedAt":"2027-01-31T14:00:00Z"}`},
		"almost an hour":     {status: v1alpha1.ApiKeyStatus{LastUsedAt: at(time.Hour)}, used: 2*time.Hour - time.Second, want: `null`},
		"the same":           {status: v1alpha1.ApiKeyStatus{LastUsedAt: at(time.Hour)}, used: time.Hour, want: `null`},
		"earlier":            {status: v1alpha1.ApiKeyStatus{LastUsedAt: at(5 * time.Hour)}, used: time.Hour, want: `null`},
		"earlier than issue": {status: v1alpha1.ApiKeyStatus{LastUsedAt: at(5 * time.Hour)}, used: -time.Hour, want: `null`},
		"the retiring token, first": {
			status: v1alpha1.ApiKeyStatus{LastUsedAt: at(time.Hour), Rotation: rotated(nil)}, used: time.Hour + time.Second, old: "old",
			want: `{"lastUsedAt":"2027-01-31T13:00:01Z","rotation":{"retiring":{"lastUsedAt":"2027-01-31T13:00:01Z"}}}`,
		},
		"the retiring token, earlier than another token": {
			status: v1alpha1.ApiKeyStatus{LastUsedAt: at(5 * time.Hour), Rotation: rotated(nil)}, used: time.Hour, old: "old",
			want: `{"rotation":{"retiring":{"lastUsedAt":"2027-01-31T13:00:00Z"}}}`,
		},
		"the retiring token, a minute later": {
			status: v1alpha1.ApiKeyStatus{LastUsedAt: at(time.Hour), Rotation: rotated(at(time.Hour))}, used: time.Hour + time.Minute, old: "old",
			want: `{"lastUsedAt":"2027-01-31T13:01:00Z","rotation":{"retiring":{"lastUsedAt":"2027-01-31T13:01:00Z"}}}`,
		},
		"the retiring token, less than a minute later": {
			status: v1alpha1.ApiKeyStatus{LastUsedAt: at(time.Hour), Rotation: rotated(at(time.Hour))}, used: time.Hour + 59*time.Second, old: "old",
			want: `null`,
		},
		"a token that retired before": {
			status: v1alpha1.ApiKeyStatus{LastUsedAt: at(time.Hour), Rotation: rotated(nil)}, used: time.Hour + time.Minute, old: "older",
			want: `null`,
		},
		"a token that has retired meanwhile": {
			status: v1alpha1.ApiKeyStatus{}, used: time.Hour, old: "old", want: `{"lastUsedAt":"2027-01-31T13:00:00Z"}`,
		},
	} {
		key := &v1alpha1.ApiKey{Status: c.status}
		key.Status.IssuedAt = at(0)
		use := usage.Waiting{At: noon.Add(c.used), Retiring: c.old}
		if c.old != "" {
			use.RetiringAt = use.At
		}
		got, err := json.Marshal(changes(key, use, noon.Add(now), time.Hour))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
	use := usage.Waiting{At: noon}
	deleted := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: at(0)}, Status: v1alpha1.ApiKeyStatus{IssuedAt: at(0)}}
	for name, key := range map[string]*v1alpha1.ApiKey{"pending": {}, "being deleted": deleted} {
		if got := changes(key, use, noon, time.Hour); got != nil {
			t.Errorf("a key that is %s: %v, want nothing", name, got)
		}
	}
}
