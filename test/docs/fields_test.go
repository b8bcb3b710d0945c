package docs

import (
	"reflect"
	"strings"
	"testing"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// The page of each kind has a table row for every field of its spec.
func TestPagesHaveEveryField(t *testing.T) {
	for name, spec := range map[string]reflect.Type{
		"docs/apikey.md":       reflect.TypeFor[v1alpha1.ApiKeySpec](),
		"docs/apikeypolicy.md": reflect.TypeFor[v1alpha1.ApiKeyPolicySpec](),
		"docs/apirole.md":      reflect.TypeFor[v1alpha1.ApiRoleSpec](),
	} {
		for _, field := range undocumented(page(t, name), "", spec) {
			t.Errorf("%s has no table row for spec.%s", name, field)
		}
	}
}

// undocumented returns the fields of a struct that have no table row on a page. A field that is a struct needs a row of its own, or one for
// each of its fields.
func undocumented(text, prefix string, of reflect.Type) []string {
	var missing []string
	for field := range of.Fields() {
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		name := prefix + tag
		if strings.Contains(text, "\n| `"+name+"` |") || strings.Contains(text, "\n| `spec."+name+"` |") {
			continue
		}
		inner := field.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			missing = append(missing, undocumented(text, name+".", inner)...)
		} else {
			missing = append(missing, name)
		}
	}
	return missing
}
