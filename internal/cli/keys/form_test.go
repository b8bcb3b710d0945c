package keys

import (
	"testing"

	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

func TestParseExpiry(t *testing.T) {
	never := v1alpha1.ApiKeyExpiry{Never: ptr.To(true)}
	for text, want := range map[string]v1alpha1.ApiKeyExpiry{
		"never":                     never,
		"90d":                       {After: "90d"},
		"12h30m":                    {After: "12h30m"},
		"3650d":                     {After: "3650d"},
		"2027-01-31":                {At: "2027-01-31T00:00:00Z"},
		"2027-01-31T18:00:00+01:00": {At: "2027-01-31T18:00:00+01:00"},
	} {
		if got, err := ParseExpiry(text); err != nil || got.After != want.After || got.At != want.At || (got.Never == nil) != (want.Never == nil) {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0s", "0d", "-1d", "3651d", "90", "90 d", "Never", "2027-02-30", "2027-1-31", "2027-01-31T18:00", "tomorrow"} {
		if got, err := ParseExpiry(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestSecretOfAForm(t *testing.T) {
	for name, c := range map[string]struct {
		form Form
		want *v1alpha1.ApiKeySecret
	}{
		"for a person":          {Form{}, &v1alpha1.ApiKeySecret{RevealFor: "15m"}},
		"for a workload":        {Form{Keep: true}, nil},
		"for a workload, named": {Form{Keep: true, SecretName: "a", SecretKey: "b"}, &v1alpha1.ApiKeySecret{Name: "a", Key: "b"}},
	} {
		c.form.Expires = Never
		key, err := c.form.Key()
		if err != nil {
			t.Fatal(err)
		}
		if got := key.Spec.Secret; (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestAttributesOfAForm(t *testing.T) {
	key, err := Form{Expires: Never, Attributes: []string{"owner=team-shop", "note=a=b, c"}}.Key()
	if err != nil || len(key.Spec.Attributes) != 2 || key.Spec.Attributes["owner"] != "team-shop" || key.Spec.Attributes["note"] != "a=b, c" {
		t.Errorf("got %v, %v", key, err)
	}
	for _, list := range [][]string{{"owner"}, {"=x"}, {"owner="}, {"a=1", "a=2"}} {
		if _, err := (Form{Expires: Never, Attributes: list}).Key(); err == nil {
			t.Errorf("%v is accepted", list)
		}
	}
}
