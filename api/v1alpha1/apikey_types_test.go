package v1alpha1_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// The message of the rule against edits names the fields that an edit changes. test/integration checks it on an API server; this test finds
// a missing field without one.
func TestMessageOfAnEditNamesEveryField(t *testing.T) {
	source, err := os.ReadFile("apikey_types.go")
	if err != nil {
		t.Fatal(err)
	}
	const marker = `XValidation:rule="(has(self.displayName)`
	_, line, found := strings.Cut(string(source), marker)
	if !found {
		t.Fatalf("apikey_types.go has no %s", marker)
	}
	line, _, _ = strings.Cut(marker+line, "\n")
	rule, message, found := strings.Cut(line, ",messageExpression=")
	if !found {
		t.Fatal("the rule of ApiKey.Spec has no messageExpression")
	}
	for field := range reflect.TypeFor[v1alpha1.ApiKeySpec]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "suspend" {
			continue // it can be edited
		}
		if !strings.Contains(rule, "self."+name+" == oldSelf."+name) {
			t.Errorf("the rule of ApiKey.Spec lets an edit of spec.%s through: add it, and run make generate", name)
		}
		if !strings.Contains(message, "' spec."+name+"'") {
			t.Errorf("the messageExpression of ApiKey.Spec does not name spec.%s: add it, and run make generate", name)
		}
	}
}
