package facts_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	deadline "github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/lifecycle"
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
		known, err := facts.Of(key, day)
		if got, expires := known.DeadlineAt(now).Time(); err != nil || expires != (c.want != never) || expires && !got.Equal(c.want) {
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
		known, err := facts.Of(&v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Expiry: c.spec}}, day)
		deadline := known.DeadlineAt(now)
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
		if got := facts.State(key) == lifecycle.Expired; got != c.want || key.IsExpired() != c.want {
			t.Errorf("%s: expired %t", name, got)
		}
	}
}

// Every reason that a key can be told makes one state, together with what else is written about it.
func TestState(t *testing.T) {
	issued := status{Hash: hash, IssuedAt: at(noon)}
	keep := map[string]string{"apikey-operator.io/keep": "true"}
	for name, c := range map[string]struct {
		reason      v1alpha1.Reason
		status      status
		annotations map[string]string
		deleted     *metav1.Time
		want        lifecycle.State
	}{
		"nobody has seen it":          {"", status{}, nil, nil, lifecycle.Pending},
		"told that it is worked on":   {v1alpha1.ReasonIssuing, status{}, nil, nil, lifecycle.Pending},
		"a reason of a later version": {"Pondered", status{}, nil, nil, lifecycle.Pending},
		"kept, and not expired":       {"", status{}, keep, nil, lifecycle.Pending},
		"unknown role":                {v1alpha1.ReasonUnknownRole, status{}, nil, nil, lifecycle.Waiting},
		"not allowed":                 {v1alpha1.ReasonNotAllowed, status{SecretName: "orders"}, nil, nil, lifecycle.Waiting},
		"refused delivery":            {v1alpha1.ReasonDeliveryRefused, status{}, nil, nil, lifecycle.Held},
		"committed":                   {v1alpha1.ReasonIssuing, status{Hash: hash}, nil, nil, lifecycle.Committed},
		"conflict":                    {v1alpha1.ReasonSecretConflict, status{Hash: hash}, nil, nil, lifecycle.Conflicted},
		"issued":                      {v1alpha1.ReasonIssued, issued, nil, nil, lifecycle.Issued},
		"expired":                     {v1alpha1.ReasonExpired, issued, nil, nil, lifecycle.Expired},
		"expired and kept":            {v1alpha1.ReasonExpired, issued, keep, nil, lifecycle.Tombstone},
		"deleted":                     {v1alpha1.ReasonIssued, issued, nil, at(noon), lifecycle.Deleting},
		"expired and deleted":         {v1alpha1.ReasonExpired, issued, keep, at(noon), lifecycle.Deleting},
	} {
		key := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Annotations: c.annotations, DeletionTimestamp: c.deleted}, Status: c.status}
		if c.reason != "" {
			key.Status.Conditions = ready(c.reason)
		}
		if got := facts.State(key); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestRecord(t *testing.T) {
	stalled := metav1.Condition{Type: v1alpha1.ConditionStalled, Reason: string(v1alpha1.ReasonSecretConflict), LastTransitionTime: *at(born)}
	skewed := metav1.Condition{Type: v1alpha1.ConditionClockSkewed}
	key := &v1alpha1.ApiKey{Status: status{
		Hash: hash, IssuedAt: at(noon), SecretName: "orders", SecretDeletedAt: at(noon),
		Conditions: append(ready(v1alpha1.ReasonSecretConflict), stalled, skewed),
	}}
	want := lifecycle.Record{
		Told: lifecycle.ToldConflict, Committed: true, Issued: true, IssuedAt: noon, SecretNamed: true, SecretDeleted: true,
		ConflictSince: born, ClockSkewed: true,
	}
	if got := facts.Record(key); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	stalled.Reason = string(v1alpha1.ReasonExpired)
	key = &v1alpha1.ApiKey{Status: status{Conditions: []metav1.Condition{stalled}}}
	if got, want := facts.Record(key), (lifecycle.Record{}); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// acceptedUntil returns the deadline of the current token. It has passed if there is none.
func acceptedUntil(key *v1alpha1.ApiKey) (deadline.Deadline, error) {
	all, err := facts.Credentials(key)
	if len(all) == 0 {
		return deadline.Deadline{}, err
	}
	return all[0].Deadline, err
}

// Each reason of Ready has a meaning of its own for the life of a key. A new one must be added to told.
func TestEveryReasonIsTold(t *testing.T) {
	means := map[lifecycle.Told][]v1alpha1.Reason{}
	for _, reason := range v1alpha1.ReadyReasons() {
		told := facts.Record(&v1alpha1.ApiKey{Status: status{Conditions: ready(reason)}}).Told
		means[told] = append(means[told], reason)
	}
	for told, reasons := range means {
		if len(reasons) > 1 && told != lifecycle.ToldRules || told == lifecycle.ToldNothing {
			t.Errorf("%v have the same meaning", reasons)
		}
	}
}

// A verifier refuses what it can't read, what has no digest and what was marked as expired, whatever its own clock says.
func TestAcceptedUntil(t *testing.T) {
	tomorrow, inConflict, marked := noon.Add(day), ready(v1alpha1.ReasonSecretConflict), ready(v1alpha1.ReasonExpired)
	for name, c := range map[string]struct {
		spec   expiry
		status status
		want   time.Time
		field  string
	}{
		"committed":          {expiry{After: "90d"}, status{Hash: hash, ExpiresAt: at(tomorrow)}, tomorrow, ""},
		"conflict":           {expiry{After: "90d"}, status{Hash: hash, ExpiresAt: at(tomorrow), Conditions: inConflict}, tomorrow, ""},
		"issued":             {expiry{After: "90d"}, status{Hash: hash, IssuedAt: at(noon), ExpiresAt: at(tomorrow)}, tomorrow, ""},
		"without a deadline": {expiry{After: "2d"}, status{Hash: hash}, tomorrow, ""},
		"marked":             {expiry{At: "2999-01-01T00:00:00Z"}, status{Hash: hash, Conditions: marked}, time.Time{}, ""},
		"marked, unreadable": {expiry{After: "soon"}, status{Hash: hash, Conditions: marked}, time.Time{}, ""},
		"without a digest":   {expiry{After: "90d"}, status{}, time.Time{}, ""},
		"no moment":          {expiry{At: "soon"}, status{Hash: hash}, time.Time{}, "spec.expiry.at"},
		"no duration":        {expiry{After: "soon"}, status{Hash: hash}, time.Time{}, "spec.expiry.after"},
	} {
		key := &v1alpha1.ApiKey{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *at(born)},
			Spec:       v1alpha1.ApiKeySpec{Expiry: c.spec, TTLAfterExpired: "soon", Secret: &secret{RevealFor: "soon"}},
			Status:     c.status,
		}
		until, err := acceptedUntil(key)
		got, expires := until.Time()
		if !expires || !got.Equal(c.want) || (c.field == "") != (err == nil) || err != nil && !names(err, c.field) {
			t.Errorf("%s: %v, expires %t, %v; want %v, error of %q", name, got, expires, err, c.want, c.field)
		}
	}
	for state, conditions := range map[string][]metav1.Condition{"alive": nil, "marked": marked} {
		key := &v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Expiry: expiry{Never: &yes}}, Status: status{Hash: hash, Conditions: conditions}}
		until, err := acceptedUntil(key)
		if _, expires := until.Time(); err != nil || expires != (state == "marked") {
			t.Errorf("never, %s: expires %t, %v", state, expires, err)
		}
	}
}

// What is refused by the schema of one field does not keep a key from being deleted, or from being left alone.
func TestOnlyWhatMattersIsRead(t *testing.T) {
	unreadable := v1alpha1.ApiKeySpec{Expiry: expiry{After: "soon"}, TTLAfterExpired: "1h", Secret: &secret{RevealFor: "soon"}}
	key := &v1alpha1.ApiKey{Spec: unreadable, Status: status{ExpiresAt: at(noon), Conditions: ready(v1alpha1.ReasonExpired)}}
	if known, err := facts.Of(key, day); err != nil || !known.CollectAt.Equal(noon.Add(time.Hour)) {
		t.Errorf("expired: %v, %v", known.CollectAt, err)
	}
	key = &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: at(noon)}, Spec: unreadable}
	if _, err := facts.Of(key, day); err != nil {
		t.Errorf("being deleted: %v", err)
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
		key := &v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Expiry: expiry{Never: &yes}, Secret: c.secret}, Status: c.status}
		known, err := facts.Of(key, day)
		if got := known.WithdrawAt; !got.Equal(c.want) || (c.field == "") != (err == nil) || err != nil && !names(err, c.field) {
			t.Errorf("%s: %v, %v; want %v, error of %q", name, got, err, c.want, c.field)
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
			Spec:       v1alpha1.ApiKeySpec{Expiry: expiry{Never: &yes}, TTLAfterExpired: c.ttl},
			Status:     status{ExpiresAt: c.expiresAt, Conditions: c.conditions},
		}
		known, err := facts.Of(key, day)
		if got := known.CollectAt; !got.Equal(c.want) || (c.field == "") != (err == nil) || err != nil && !names(err, c.field) {
			t.Errorf("%s: %v, %v; want %v, error of %q", name, got, err, c.want, c.field)
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
		if got := facts.KeptBy(key); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		facts.Trim(key)
		if got := facts.KeptBy(key); got != c.want {
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
	facts.Trim(key)
	if !reflect.DeepEqual(key, want) {
		t.Errorf("got  %+v\nwant %+v", key, want)
	}
}
