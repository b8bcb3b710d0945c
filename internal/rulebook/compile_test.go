package rulebook

import (
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/grant"
)

func TestWhatCanNotBeUnderstoodAllowsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spec v1alpha1.ApiKeyPolicySpec
		want string
	}{
		"a good one":           {v1alpha1.ApiKeyPolicySpec{Roles: []string{"*"}}, ""},
		"a longest life of 0":  {v1alpha1.ApiKeyPolicySpec{Roles: []string{"*"}, MaxLifetime: "0d"}, "spec.maxLifetime"},
		"a life in weeks":      {v1alpha1.ApiKeyPolicySpec{Roles: []string{"*"}, MaxLifetime: "1w"}, "spec.maxLifetime"},
		"an unknown operator":  {v1alpha1.ApiKeyPolicySpec{Roles: []string{"*"}, NamespaceSelector: expression("team", "Near", "a")}, "spec.namespaceSelector"},
		"a label that is none": {v1alpha1.ApiKeyPolicySpec{Roles: []string{"*"}, NamespaceSelector: expression("a b", "Exists")}, "spec.namespaceSelector"},
	} {
		rules := compile(nil, []v1alpha1.ApiKeyPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: c.spec}}, Options{})
		verdict := rules.Judge(grant.Request{Roles: []string{"a"}, Lifetime: time.Hour})
		if allowed := verdict.Outcome == grant.Allowed; allowed != (c.want == "") || !strings.Contains(verdict.Message, c.want) {
			t.Errorf("%s: %d %q", name, verdict.Outcome, verdict.Message)
		}
	}
}

func TestAttributesOfAPolicy(t *testing.T) {
	terms := translate(&v1alpha1.ApiKeyPolicy{Spec: v1alpha1.ApiKeyPolicySpec{
		RequiredAttributes: []string{"plan"}, Attributes: map[string]v1alpha1.AttributeValues{"owner": {"team-a", "team-b"}, "plan": {}},
	}})
	if want := map[string][]string{"owner": {"team-a", "team-b"}, "plan": {}}; !reflect.DeepEqual(terms.AllowedAttributes, want) {
		t.Errorf("allowed attributes are %v, want %v", terms.AllowedAttributes, want)
	}
	key := &v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{
		Expiry: v1alpha1.ApiKeyExpiry{After: "1d"}, Attributes: map[string]v1alpha1.AttributeValue{"owner": "team-a"},
	}}
	request, err := ask(key, time.Now())
	if want := map[string]string{"owner": "team-a"}; err != nil || !reflect.DeepEqual(request.Attributes, want) {
		t.Errorf("the request has the attributes %v, error %v; want %v", request.Attributes, err, want)
	}
}

func expression(key, operator string, values ...v1alpha1.LabelValue) *v1alpha1.NamespaceSelector {
	return &v1alpha1.NamespaceSelector{MatchExpressions: []v1alpha1.NamespaceSelectorRequirement{
		{Key: key, Operator: v1alpha1.NamespaceSelectorOperator(operator), Values: values},
	}}
}

func TestNamespaceSelectorsReadLikeLabelSelectors(t *testing.T) {
	labels := map[string]string{"team": "a", "tier": ""}
	for name, c := range map[string]struct {
		selector *v1alpha1.NamespaceSelector
		want     bool
	}{
		"absent":           {nil, true},
		"empty":            {&v1alpha1.NamespaceSelector{}, true},
		"a label":          {&v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{"team": "a"}}, true},
		"another value":    {&v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{"team": "b"}}, false},
		"one of two":       {&v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{"team": "a", "x": "y"}}, false},
		"In":               {expression("team", "In", "b", "a"), true},
		"NotIn":            {expression("team", "NotIn", "a"), false},
		"NotIn of nothing": {expression("absent", "NotIn", "a"), true},
		"Exists":           {expression("tier", "Exists"), true},
		"DoesNotExist":     {expression("tier", "DoesNotExist"), false},
	} {
		terms := translate(&v1alpha1.ApiKeyPolicy{Spec: v1alpha1.ApiKeyPolicySpec{NamespaceSelector: c.selector}})
		if terms.Unreadable != "" || terms.Selects(labels) != c.want {
			t.Errorf("%s: selects: %v, %s", name, terms.Selects(labels), terms.Unreadable)
		}
	}
}

func TestWhatAKeyAsksFor(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := v1alpha1.ApiKeyExpiry{At: "2030-01-02T00:00:00Z"}
	for name, c := range map[string]struct {
		expiry v1alpha1.ApiKeyExpiry
		issued time.Duration // before now; 0 is not yet
		want   grant.Request
	}{
		"never":         {v1alpha1.ApiKeyExpiry{Never: ptr.To(true)}, 0, grant.Request{Never: true, Expiry: "after: "}},
		"after":         {v1alpha1.ApiKeyExpiry{After: "90d"}, 0, grant.Request{Lifetime: 90 * 24 * time.Hour, Expiry: "after: 90d"}},
		"after, issued": {v1alpha1.ApiKeyExpiry{After: "90d"}, time.Hour, grant.Request{Lifetime: 90 * 24 * time.Hour, Expiry: "after: 90d"}},
		"at":            {at, 0, grant.Request{Lifetime: 24 * time.Hour, Expiry: "at: 2030-01-02T00:00:00Z", Shrinks: true}},
		"at, issued":    {at, time.Hour, grant.Request{Lifetime: 25 * time.Hour, Expiry: "at: 2030-01-02T00:00:00Z"}},
	} {
		key := &v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Expiry: c.expiry}}
		if c.issued != 0 {
			key.Status.IssuedAt = ptr.To(metav1.NewTime(now.Add(-c.issued)))
		}
		got, err := ask(key, now)
		if err != nil || got.Never != c.want.Never || got.Lifetime != c.want.Lifetime || got.Expiry != c.want.Expiry || got.Shrinks != c.want.Shrinks {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, wrong := range []v1alpha1.ApiKeyExpiry{{}, {At: "tomorrow"}, {After: "1w"}} {
		if got, err := ask(&v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Expiry: wrong}}, now); err == nil {
			t.Errorf("%+v: %+v", wrong, got)
		}
	}
}

func TestCountsAndAnnotationsDoNotMatter(t *testing.T) {
	role := func(uid types.UID, generation int64, label string) *v1alpha1.ApiRole {
		return &v1alpha1.ApiRole{ObjectMeta: metav1.ObjectMeta{
			UID: uid, Generation: generation, Labels: map[string]string{"l": label},
		}}
	}
	namespace := func(label, annotation string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{"l": label}, Annotations: map[string]string{"a": annotation},
		}}
	}
	for name, c := range map[string]struct {
		before, after any
		want          bool
	}{
		"a role's status or labels": {role("a", 1, "x"), role("a", 1, "y"), false},
		"a role's spec":             {role("a", 1, "x"), role("a", 2, "x"), true},
		"a role that was replaced":  {role("a", 1, "x"), role("b", 1, "x"), true},
		"a namespace's labels":      {namespace("x", ""), namespace("y", ""), true},
		"a namespace's annotations": {namespace("x", "a"), namespace("x", "b"), false},
		"nobody knows what":         {1, 2, true},
	} {
		if got := matters(c.before, c.after); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A policy field that no code reads would allow what its author meant to refuse.
func TestEveryFieldOfAPolicyRefuses(t *testing.T) {
	all := []string{"*"}
	refusing := map[string]v1alpha1.ApiKeyPolicySpec{ // for each field, a policy that refuses the request because of it
		"namespaceSelector": {Roles: all, NamespaceSelector: &v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{"team": "b"}}},
		"roles":             {Roles: []string{"b"}},
		"maxLifetime":       {Roles: all, MaxLifetime: "1d"},
		"allowedCIDRs":      {Roles: all, AllowedCIDRs: []string{"10.0.0.0/8"}},
		"requireExpiry":     {Roles: all, RequireExpiry: ptr.To(true)},

		"requiredAttributes": {Roles: all, RequiredAttributes: []string{"plan"}},
		"attributes":         {Roles: all, Attributes: map[string]v1alpha1.AttributeValues{"owner": {"team-b"}}},
	}
	judge := func(spec v1alpha1.ApiKeyPolicySpec) grant.Verdict {
		rules := compile(nil, []v1alpha1.ApiKeyPolicy{{Spec: spec}}, Options{})
		return rules.Judge(grant.Request{
			Roles: []string{"a"}, Labels: map[string]string{"team": "a"}, Never: true, Attributes: map[string]string{"owner": "team-a"},
		})
	}
	if got := judge(v1alpha1.ApiKeyPolicySpec{Roles: all}); got.Outcome != grant.Allowed {
		t.Fatalf("a policy that allows all refuses: %s", got.Message)
	}
	for field := range reflect.TypeFor[v1alpha1.ApiKeyPolicySpec]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		spec, ok := refusing[name]
		if !ok {
			t.Errorf("spec.%s needs a policy in this test that refuses a key because of it", name)
			continue
		}
		if got := judge(spec); got.Outcome != grant.NotAllowed || strings.Contains(got.Message, "the policy is invalid") {
			t.Errorf("a policy that must refuse because of spec.%s does not, or is invalid (%s): does translate read the field, is its demand in "+
				"demands, and does the request of this test have what the policy refuses?", name, got.Message)
		}
	}
}
