package timeline_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/controllers/timeline"
)

const day = 24 * time.Hour

type (
	expiry = v1alpha1.ApiKeyExpiry
	secret = v1alpha1.ApiKeySecret
	status = v1alpha1.ApiKeyStatus
)

// The key was born a day before noon; now is a fraction of a second past noon.
var (
	noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	now  = noon.Add(700 * time.Millisecond)
	born = noon.Add(-day)
	yes  = true
	no   = false
)

const hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func at(t time.Time) *metav1.Time { return &metav1.Time{Time: t} }

func ready(reason v1alpha1.Reason) []metav1.Condition {
	return []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(reason), LastTransitionTime: *at(noon),
	}}
}

func names(err error, field string) bool {
	return err != nil && strings.HasPrefix(err.Error(), field+": ")
}

func TestDeadline(t *testing.T) {
	never := time.Time{}
	for name, c := range map[string]struct {
		spec   expiry
		status status
		want   time.Time
	}{
		"after":            {expiry{After: "90d"}, status{}, noon.Add(90 * day)},
		"at":               {expiry{At: "2027-06-01T00:00:00.9+02:00"}, status{}, time.Date(2027, 5, 31, 22, 0, 0, 0, time.UTC)},
		"at, in the past":  {expiry{At: "2000-01-01T00:00:00Z"}, status{}, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"never":            {expiry{Never: &yes}, status{}, never},
		"never, committed": {expiry{Never: &yes}, status{Hash: hash}, never},

		"fixed, after":        {expiry{After: "90d"}, status{Hash: hash, ExpiresAt: at(noon.Add(day))}, noon.Add(day)},
		"fixed, at":           {expiry{At: "2027-06-01T00:00:00Z"}, status{ExpiresAt: at(noon)}, noon},
		"fixed, never":        {expiry{Never: &yes}, status{ExpiresAt: at(noon)}, noon},
		"fixed, invalid spec": {expiry{After: "soon"}, status{ExpiresAt: at(noon)}, noon},

		"tampered, after": {expiry{After: "90d"}, status{Hash: hash}, born.Add(90 * day)},
		"tampered, at":    {expiry{At: "2027-06-01T00:00:00Z"}, status{Hash: hash}, time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)},
	} {
		key := &v1alpha1.ApiKey{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *at(born)},
			Spec:       v1alpha1.ApiKeySpec{Expiry: c.spec},
			Status:     c.status,
		}
		deadline, err := timeline.Deadline(key, now)
		if got, expires := deadline.Time(); err != nil || expires != (c.want != never) || expires && !got.Equal(c.want) {
			t.Errorf("%s: %v, expires %t, %v; want %v", name, got, expires, err, c.want)
		}
	}
}

func TestDeadlineOfInvalidSpec(t *testing.T) {
	for name, c := range map[string]struct {
		spec  expiry
		field string
	}{
		"nothing":       {expiry{}, "spec.expiry.after"},
		"not never":     {expiry{Never: &no}, "spec.expiry.after"},
		"no duration":   {expiry{After: "soon"}, "spec.expiry.after"},
		"too long":      {expiry{After: "3651d"}, "spec.expiry.after"},
		"no moment":     {expiry{At: "2027-01-31"}, "spec.expiry.at"},
		"at over after": {expiry{At: "soon", After: "90d"}, "spec.expiry.at"},
	} {
		deadline, err := timeline.Deadline(&v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Expiry: c.spec}}, now)
		if !names(err, c.field) || !deadline.Passed(now) {
			t.Errorf("%s: %v, passed %t; want an error of %s and a deadline that has passed", name, err, deadline.Passed(now), c.field)
		}
	}
}

func TestExpired(t *testing.T) {
	corrected := ready(v1alpha1.ReasonExpired)
	corrected[0].Status = metav1.ConditionTrue
	stalled := ready(v1alpha1.ReasonExpired)
	stalled[0].Type = v1alpha1.ConditionStalled
	for name, c := range map[string]struct {
		conditions []metav1.Condition
		want       bool
	}{
		"no condition":            {nil, false},
		"issuing":                 {ready(v1alpha1.ReasonIssuing), false},
		"issued":                  {ready(v1alpha1.ReasonIssued), false},
		"conflict":                {ready(v1alpha1.ReasonSecretConflict), false},
		"expired":                 {ready(v1alpha1.ReasonExpired), true},
		"expired, yet True":       {corrected, true},
		"another condition":       {stalled, false},
		"another condition first": {append(stalled, ready(v1alpha1.ReasonExpired)...), true},
	} {
		key := &v1alpha1.ApiKey{Status: status{ExpiresAt: at(born), Conditions: c.conditions}}
		if got := timeline.Expired(key); got != c.want {
			t.Errorf("%s: expired %t", name, got)
		}
	}
}

func TestWithdrawAt(t *testing.T) {
	issued := status{IssuedAt: at(noon)}
	for name, c := range map[string]struct {
		secret *secret
		status status
		want   time.Time
		field  string
	}{
		"issued":         {&secret{RevealFor: "15m"}, issued, noon.Add(15 * time.Minute), ""},
		"no secret":      {nil, issued, time.Time{}, ""},
		"no revealFor":   {&secret{Name: "s"}, issued, time.Time{}, ""},
		"not issued yet": {&secret{RevealFor: "15m"}, status{Hash: hash}, time.Time{}, ""},
		"done":           {&secret{RevealFor: "15m"}, status{IssuedAt: at(noon), SecretDeletedAt: at(noon)}, time.Time{}, ""},
		"no duration":    {&secret{RevealFor: "soon"}, issued, time.Time{}, "spec.secret.revealFor"},
	} {
		key := &v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Secret: c.secret}, Status: c.status}
		got, ok, err := timeline.WithdrawAt(key)
		if !got.Equal(c.want) || ok == c.want.IsZero() || (c.field == "") != (err == nil) || err != nil && !names(err, c.field) {
			t.Errorf("%s: %v, %t, %v; want %v, error of %q", name, got, ok, err, c.want, c.field)
		}
	}
}

func TestCollectAt(t *testing.T) {
	type set = map[string]string
	expired := ready(v1alpha1.ReasonExpired)
	for name, c := range map[string]struct {
		ttl                 v1alpha1.Duration
		labels, annotations set
		expiresAt           *metav1.Time
		conditions          []metav1.Condition
		want                time.Time
		field               string
	}{
		"default":              {"", nil, nil, at(noon), expired, noon.Add(day), ""},
		"own ttl":              {"7d", nil, nil, at(noon), expired, noon.Add(7 * day), ""},
		"at once":              {"0s", nil, nil, at(noon), expired, noon, ""},
		"marked late":          {"1h", nil, nil, at(born), expired, noon.Add(time.Hour), ""},
		"marked too soon":      {"1h", nil, nil, at(noon.Add(day)), expired, noon.Add(25 * time.Hour), ""},
		"not asked to be kept": {"1h", nil, set{"apikey-operator.io/keep": "false"}, at(noon), expired, noon.Add(time.Hour), ""},
		"other annotations":    {"1h", set{"app": "shop"}, set{"keep": "true"}, at(noon), expired, noon.Add(time.Hour), ""},

		"kept":           {"0s", nil, set{"apikey-operator.io/keep": "true"}, at(noon), expired, time.Time{}, ""},
		"GitOps":         {"0s", set{"kustomize.toolkit.fluxcd.io/name": "shop"}, nil, at(noon), expired, time.Time{}, ""},
		"GitOps, unkept": {"0s", set{"kapp.k14s.io/app": "1"}, set{"apikey-operator.io/keep": "false"}, at(noon), expired, time.Time{}, ""},
		"alive":          {"0s", nil, nil, at(noon), ready(v1alpha1.ReasonIssued), time.Time{}, ""},
		"not marked yet": {"0s", nil, nil, at(born), nil, time.Time{}, ""},
		"no deadline":    {"0s", nil, nil, nil, expired, time.Time{}, ""},
		"no duration":    {"soon", nil, nil, at(noon), expired, time.Time{}, "spec.ttlAfterExpired"},
	} {
		key := &v1alpha1.ApiKey{
			ObjectMeta: metav1.ObjectMeta{Labels: c.labels, Annotations: c.annotations},
			Spec:       v1alpha1.ApiKeySpec{TTLAfterExpired: c.ttl},
			Status:     status{ExpiresAt: c.expiresAt, Conditions: c.conditions},
		}
		got, ok, err := timeline.CollectAt(key, day)
		if !got.Equal(c.want) || ok == c.want.IsZero() || (c.field == "") != (err == nil) || err != nil && !names(err, c.field) {
			t.Errorf("%s: %v, %t, %v; want %v, error of %q", name, got, ok, err, c.want, c.field)
		}
	}
}

func TestKeptBy(t *testing.T) {
	argo := map[string]string{"argocd.argoproj.io/instance": "shop"}
	keep := map[string]string{"apikey-operator.io/keep": "true"}
	for name, c := range map[string]struct {
		labels, annotations map[string]string
		want                string
	}{
		"nothing":    {nil, nil, ""},
		"tool":       {argo, nil, "Argo CD"},
		"annotation": {nil, keep, "the annotation apikey-operator.io/keep"},
		"both":       {argo, keep, "the annotation apikey-operator.io/keep"},
	} {
		key := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Labels: c.labels, Annotations: c.annotations}}
		if got := timeline.KeptBy(key); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		timeline.Trim(key)
		if got := timeline.KeptBy(key); got != c.want {
			t.Errorf("%s, trimmed: %q, want %q", name, got, c.want)
		}
	}
}

func TestTrimLeavesWhatIsRead(t *testing.T) {
	key := &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "orders", UID: "1", ResourceVersion: "2", Generation: 3,
			CreationTimestamp: *at(born), DeletionTimestamp: at(noon),
		},
		Spec:   v1alpha1.ApiKeySpec{Roles: []string{"read"}},
		Status: status{ExpiresAt: at(noon)},
	}
	want := key.DeepCopy()
	key.Labels = map[string]string{"team": "shop"}
	key.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}", "apikey-operator.io/keep": "no"}
	key.Finalizers = []string{"example.com/held"}
	key.OwnerReferences = []metav1.OwnerReference{{Name: "shop"}}
	key.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	timeline.Trim(key)
	if !reflect.DeepEqual(key, want) {
		t.Errorf("got  %+v\nwant %+v", key, want)
	}
}
