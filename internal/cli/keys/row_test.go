package keys

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

var now = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

func keyThat(change func(*v1alpha1.ApiKey)) *v1alpha1.ApiKey {
	key := &v1alpha1.ApiKey{}
	key.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
	change(key)
	return key
}

func ready(reason v1alpha1.Reason) []metav1.Condition {
	return []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: string(reason)}}
}

func TestRowShowsStatusAndExpiry(t *testing.T) {
	expiresIn := func(d time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(now.Add(d))) }
	for name, c := range map[string]struct {
		key             *v1alpha1.ApiKey
		status, expires string
	}{
		"new": {keyThat(func(k *v1alpha1.ApiKey) { k.Spec.Expiry.After = "90d" }), "Pending", "-"},
		"new, with a date": {keyThat(func(k *v1alpha1.ApiKey) {
			k.Spec.Expiry.At = "2027-01-03T12:00:00Z"
		}), "Pending", "2d12h"},
		"never": {keyThat(func(k *v1alpha1.ApiKey) {
			k.Spec.Expiry.Never, k.Status.Conditions = ptr.To(true), ready(v1alpha1.ReasonIssued)
		}), "Issued", "never"},
		"a second before its end": {keyThat(func(k *v1alpha1.ApiKey) {
			k.Status.ExpiresAt, k.Status.Conditions = expiresIn(time.Second), ready(v1alpha1.ReasonIssued)
		}), "Issued", "1s"},
		"at its end, which no operator has noticed": {keyThat(func(k *v1alpha1.ApiKey) {
			k.Status.ExpiresAt, k.Status.Conditions = expiresIn(0), ready(v1alpha1.ReasonIssued)
		}), "Expired", "0s ago"},
		"suspended": {keyThat(func(k *v1alpha1.ApiKey) {
			k.Status.ExpiresAt, k.Status.Conditions = expiresIn(48*time.Hour), ready(v1alpha1.ReasonSuspended)
		}), "Suspended", "2d"},
		"being deleted": {keyThat(func(k *v1alpha1.ApiKey) {
			k.DeletionTimestamp, k.Status.Conditions = expiresIn(0), ready(v1alpha1.ReasonIssued)
		}), "Deleting", "-"},
	} {
		row := RowOf(c.key, now)
		if row.Status != c.status || row.Expires(now) != c.expires {
			t.Errorf("%s: got %s, %s; want %s, %s", name, row.Status, row.Expires(now), c.status, c.expires)
		}
	}
}

func TestFilter(t *testing.T) {
	const day = 24 * time.Hour
	within, unused := Filter{ExpiringWithin: 14 * day}, Filter{UnusedFor: 30 * day}
	for name, c := range map[string]struct {
		filter Filter
		row    Row
		want   bool
	}{
		"all":                       {Filter{}, Row{Never: true}, true},
		"expires in time":           {within, Row{Status: "Issued", ExpiresAt: now.Add(14 * day)}, true},
		"expires a bit later":       {within, Row{Status: "Issued", ExpiresAt: now.Add(14*day + 1)}, false},
		"expires, but is suspended": {within, Row{Status: "Suspended", ExpiresAt: now.Add(day)}, false},
		"expires, but is pending":   {within, Row{Status: StatusPending, ExpiresAt: now.Add(day)}, false},
		"has expired":               {within, Row{Status: "Issued", ExpiresAt: now}, false},
		"never expires":             {within, Row{Status: "Issued", Never: true}, false},
		"not fixed yet":             {within, Row{Status: "Issued"}, false},
		"unused since its issue":    {unused, Row{Issued: now.Add(-30 * day)}, true},
		"issued a bit later":        {unused, Row{Issued: now.Add(-30*day + 1)}, false},
		"used in time":              {unused, Row{Issued: now.Add(-90 * day), Used: now.Add(-30*day + 1)}, false},
		"used long ago":             {unused, Row{Issued: now.Add(-90 * day), Used: now.Add(-30 * day)}, true},
		"not issued":                {unused, Row{Created: now.Add(-90 * day)}, false},
		"unused, but has expired":   {unused, Row{Issued: now.Add(-90 * day), Status: "Expired"}, false},
		"has the owner":             {Filter{Owner: "a"}, Row{Owner: "a"}, true},
		"has another owner":         {Filter{Owner: "a"}, Row{Owner: "ab"}, false},
		"has the role":              {Filter{Role: "a"}, Row{Roles: []string{"b", "a"}}, true},
		"does not have the role":    {Filter{Role: "a"}, Row{Roles: []string{"ab"}}, false},
		"has the role, but expires": {Filter{Role: "a", ExpiringWithin: day}, Row{Roles: []string{"a"}}, false},
	} {
		if got := c.filter.Shows(c.row, now); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestOrders(t *testing.T) {
	rows := []Row{
		{Name: "never", Never: true, Status: "Issued", Created: now},
		{Name: "late", ExpiresAt: now.Add(2), Status: "Issued", Created: now.Add(-2), Used: now},
		{Name: "early", ExpiresAt: now.Add(1), Status: "Expired", Created: now.Add(-1)},
		{Namespace: "z", Name: "a", ExpiresAt: now.Add(1), Status: "Issued", Created: now},
	}
	for order, want := range map[string][]string{
		"owner":   {"early", "late", "never", "a"},
		"name":    {"early", "late", "never", "a"},
		"used":    {"early", "never", "a", "late"},
		"expires": {"early", "a", "late", "never"},
		"status":  {"early", "late", "never", "a"},
		"age":     {"never", "a", "early", "late"},
	} {
		sorted := slices.Clone(rows)
		slices.SortFunc(sorted, Orders[order])
		names := make([]string, 0, len(sorted))
		for _, row := range sorted {
			names = append(names, row.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("by %s: got %v, want %v", order, names, want)
		}
	}
}

func TestLastUsed(t *testing.T) {
	for used, want := range map[time.Time]string{{}: "not seen", now.Add(-3 * time.Hour): "3h ago", now: "0s ago", now.Add(time.Minute): "0s ago"} {
		if got := (Row{Used: used}).LastUsed(now); got != want {
			t.Errorf("%s: %q, want %q", used, got, want)
		}
	}
}
