package keys

import (
	"fmt"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

// RevealFor is how long the Secret of a new key stays at most if somebody is to receive the token at once. It guards against an
// interruption before that: the token is neither lost, nor kept permanently.
const RevealFor = "15m"

// Form is what a person fills in to ask for a key.
type Form struct {
	Namespace, Name string
	// DisplayName says what the key is for. Empty means none.
	DisplayName string
	Roles       []string
	// Expires is a duration such as 90d, a date, a time in RFC 3339, or never; see [ParseExpiry].
	Expires string
	// CIDRs are the networks that the key may be used from. Empty means any.
	CIDRs []string
	// Keep leaves the token in its Secret, for a workload. Otherwise the Secret is for one person, and stays no longer than RevealFor.
	Keep bool
	// SecretName and SecretKey say where the token is delivered. Empty means the name of the key, and token.
	SecretName, SecretKey string
	// Attributes are the attributes of the key, each as name=value.
	Attributes []string
	// RotateEvery is the time between two rotations, such as 30d. Empty means that the token is replaced on request only.
	RotateEvery string
	// Overlap is how long the old token works on after a rotation. Empty means the default.
	Overlap string
}

// Key returns the ApiKey that the form asks for. An error says which field of the spec is invalid, and what would be valid. The API server
// checks the rest; see [Cluster.DryRun].
func (f Form) Key() (*v1alpha1.ApiKey, error) {
	key := &v1alpha1.ApiKey{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ApiKey"},
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: f.Name},
		Spec:       v1alpha1.ApiKeySpec{DisplayName: f.DisplayName, Roles: f.Roles, CIDRs: f.CIDRs},
	}
	var err error
	if key.Spec.Expiry, err = ParseExpiry(f.Expires); err != nil {
		return nil, err
	}
	if key.Spec.Attributes, err = parseAttributes(f.Attributes); err != nil {
		return nil, err
	}
	secret := v1alpha1.ApiKeySecret{Name: f.SecretName, Key: f.SecretKey}
	if !f.Keep {
		secret.RevealFor = RevealFor
	}
	if secret != (v1alpha1.ApiKeySecret{}) {
		key.Spec.Secret = &secret
	}
	if rotation := (v1alpha1.ApiKeyRotation{Every: v1alpha1.Duration(f.RotateEvery), Overlap: v1alpha1.Duration(f.Overlap)}); rotation != (v1alpha1.ApiKeyRotation{}) {
		key.Spec.Rotation = &rotation
	}
	return key, nil
}

// parseAttributes parses attributes, each as name=value. The schema checks names and values.
func parseAttributes(list []string) (map[string]v1alpha1.AttributeValue, error) {
	if len(list) == 0 {
		return nil, nil
	}
	all := make(map[string]v1alpha1.AttributeValue, len(list))
	for _, one := range list {
		name, value, found := strings.Cut(one, "=")
		if _, twice := all[name]; !found || name == "" || value == "" || twice {
			return nil, fmt.Errorf("spec.attributes: invalid attribute %q: must be name=value, such as owner=team-shop, and each name once", one)
		}
		all[name] = v1alpha1.AttributeValue(value)
	}
	return all, nil
}

// Never is the expiry of a key that does not expire.
const Never = "never"

var date = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)

// ParseExpiry parses when a key expires: a duration such as 90d or 12h30m, counted from the issue; a date such as 2027-01-31, which means
// the start of that day in UTC; a time in RFC 3339; or never.
func ParseExpiry(text string) (v1alpha1.ApiKeyExpiry, error) {
	switch {
	case text == Never:
		return v1alpha1.ApiKeyExpiry{Never: ptr.To(true)}, nil
	case date.MatchString(text):
		if moment := text + "T00:00:00Z"; isMoment(moment) {
			return v1alpha1.ApiKeyExpiry{At: moment}, nil
		}
	case isMoment(text):
		return v1alpha1.ApiKeyExpiry{At: text}, nil
	default:
		if d, err := expiry.ParseDuration(text); err == nil && d > 0 {
			return v1alpha1.ApiKeyExpiry{After: v1alpha1.Duration(text)}, nil
		}
	}
	return v1alpha1.ApiKeyExpiry{}, fmt.Errorf("spec.expiry: invalid expiry %q: must be a duration of at most 3650d such as 90d or 12h30m, "+
		"a date such as 2027-01-31, a time such as 2027-01-31T18:00:00Z, or never", text)
}

func isMoment(text string) bool {
	_, err := expiry.ParseMoment(text)
	return err == nil
}
