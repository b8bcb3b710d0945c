package serve_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/serve"
)

func TestAttributeHeaders(t *testing.T) {
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprintf("name-%d", i)
	}
	for name, c := range map[string]struct {
		names []string
		want  string // the headers, or a part of the error
	}{
		"none":       {nil, ""},
		"some":       {[]string{"owner", "cost-center", "a1-b-"}, "X-Apikey-Attribute-Owner X-Apikey-Attribute-Cost-Center X-Apikey-Attribute-A1-B-"},
		"a header":   {[]string{"X-Apikey-Attribute-Owner"}, "is not a name of an attribute: must be a lower-case letter"},
		"upper case": {[]string{"owner", "Plan"}, `"Plan" is not a name of an attribute`},
		"underscore": {[]string{"cost_center"}, `"cost_center" is not a name`},
		"empty":      {[]string{""}, `"" is not a name`},
		"twice":      {[]string{"owner", "plan", "owner"}, `"owner" is listed twice: remove one`},
		"17":         {many, "too many attributes: 17, must be at most 16"},
	} {
		headers, err := serve.NewAttributeHeaders(c.names)
		var got []string
		for i, h := range headers {
			got = append(got, h.Header)
			if h.Attribute != c.names[i] || h.Lower != strings.ToLower(h.Header) || !serve.IsIdentity(h.Header) {
				t.Errorf("%s: got %+v, want the attribute %s and a header that is removed from requests", name, h, c.names[i])
			}
		}
		switch {
		case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		case err == nil && strings.Join(got, " ") != c.want:
			t.Errorf("%s: headers %v, want %q", name, got, c.want)
		}
	}
}
