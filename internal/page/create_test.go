package page

import (
	"net/url"
	"slices"
	"testing"
	"time"
)

func TestForm(t *testing.T) {
	full := url.Values{
		"namespace": {"shop"}, "name": {" web-shop "}, "purpose": {"Web shop"}, "owner": {"team-shop"}, "roles": {"b", "c, d\r\ne"}, "expires": {"30"},
		"networks": {"10.0.0.0/8\n2001:db8::/32"}, "delivery": {"workload"},
	}
	f := &form{}
	f.read(full)
	key := f.key()
	if key == nil {
		t.Fatalf("refused: %v", f.Refusals)
	}
	if key.Name != "web-shop" || !slices.Equal(key.Spec.Roles, []string{"b", "c", "d", "e"}) || key.Spec.Expiry.After != "30d" || key.Spec.Secret != nil ||
		!slices.Equal(key.Spec.CIDRs, []string{"10.0.0.0/8", "2001:db8::/32"}) || key.Spec.Attributes["owner"] != "team-shop" {
		t.Errorf("%+v", key.Spec)
	}
	for field, change := range map[string]url.Values{
		fieldNamespace: {"namespace": {" "}}, fieldName: {"name": {""}}, fieldRoles: {"roles": {" ,\n"}}, fieldExpires: {"expires": {"soon"}},
		"expires ": {"expires": {"date"}, "date": {""}}, "expires  ": {"expires": {"date"}, "date": {"2027-02-30"}}, "expires   ": {"expires": {""}},
	} {
		changed := url.Values{}
		for name, values := range full {
			changed[name] = values
		}
		for name, values := range change {
			changed[name] = values
		}
		f := &form{}
		f.read(changed)
		want := field
		if field[:1] == "e" {
			want = fieldExpires
		}
		if f.key() != nil || len(f.Refusals) != 1 || len(f.Refusals[want]) != 1 {
			t.Errorf("%v: refusals %v", change, f.Refusals)
		}
	}
}

func TestFields(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.name": fieldName, "spec.roles[0]": fieldRoles, "spec.roles": fieldRoles, "spec.expiry.at": fieldExpires, "spec.cidrs[3]": fieldNetworks,
		"spec.displayName": fieldPurpose, "spec.secret.name": fieldDelivery, "spec.attributes.owner": fieldOwner, "spec": fieldForm, "": fieldForm,
		"spec.rolesX": fieldForm,
	} {
		if got := fieldOf(path); got != want {
			t.Errorf("%q is at %s, and should be at %s", path, got, want)
		}
	}
	for message, want := range map[string]string{
		`policy "a": expiry.after (its maxLifetime is 30d)`:                         fieldExpires,
		`policy "a": the network 10.0.0.0/8 (each must lie within one of x)`:        fieldNetworks,
		`policy "a": the network 10.0.0.0/8; policy "b": expiry.never (it requires`: fieldForm,
		"something else": fieldForm,
	} {
		if got := fieldOfVerdict(message); got != want {
			t.Errorf("%q is at %s, and should be at %s", message, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		0: "0 seconds", time.Second: "1 second", 119 * time.Second: "119 seconds", 2 * time.Minute: "2 minutes", 2*time.Hour - 1: "119 minutes",
		2 * time.Hour: "2 hours", 2*day - 1: "47 hours", 2 * day: "2 days", 90*day - time.Minute: "90 days", 90*day - 13*time.Hour: "89 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%s is %q, and should be %q", d, got, want)
		}
	}
	for reason, want := range map[string]string{"Issued": "Issued", "NotAllowed": "Not allowed", "": ""} {
		if got := spaced(reason); got != want {
			t.Errorf("%q becomes %q", reason, got)
		}
	}
}
