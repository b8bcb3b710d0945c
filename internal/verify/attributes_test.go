package verify_test

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/apikey-operator/apikey-operator/internal/verify"
)

func attributesOf(t *testing.T, values map[string]string) verify.Attributes {
	t.Helper()
	a, err := verify.NewAttributes(values)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAttributes(t *testing.T) {
	values := map[string]string{"owner": "team-shop", "plan": "a=b, c", "cost-center": "42"}
	a := attributesOf(t, values)
	if a.Empty() || !maps.Equal(a.Map(), values) {
		t.Errorf("attributes are %v, want %v", a.Map(), values)
	}
	var names []string
	for name, value := range a.All() {
		names = append(names, name)
		if value != values[name] || a.Get(name) != value {
			t.Errorf("%s is %q and %q, want %q", name, value, a.Get(name), values[name])
		}
	}
	if !slices.IsSorted(names) || len(names) != len(values) {
		t.Errorf("names are %v, want them sorted", names)
	}
	for range a.All() {
		break // a loop may end early
	}
	if got := a.Get("own"); got != "-" {
		t.Errorf("an attribute that the key lacks is %q, want -", got)
	}
	if a != attributesOf(t, maps.Clone(values)) || a == attributesOf(t, map[string]string{"owner": "team-shop"}) {
		t.Error("== does not compare attributes")
	}
	var none verify.Attributes
	if !none.Empty() || none != attributesOf(t, nil) || none != attributesOf(t, map[string]string{}) || none.Map() != nil || none.Get("owner") != "-" {
		t.Errorf("the zero value is %v, want no attributes", none.Map())
	}
	if size := unsafe.Sizeof(none); size != unsafe.Sizeof(uintptr(0)) {
		t.Errorf("attributes take %d bytes of each key, want one word", size)
	}
}

func TestAttributesAreValidated(t *testing.T) {
	longest := strings.Repeat("x", 63)
	many := map[string]string{}
	for i := range 17 {
		many[fmt.Sprintf("name-%d", i)] = "x"
	}
	for name, c := range map[string]struct {
		values map[string]string
		want   string // a part of the error; empty means valid
	}{
		"the longest":        {map[string]string{longest: strings.Repeat("~", 256)}, ""},
		"inner spaces":       {map[string]string{"a": "b  c"}, ""},
		"17":                 {many, "too many attributes: 17, must be at most 16"},
		"a name too long":    {map[string]string{longest + "x": "x"}, "is not a name of an attribute"},
		"no name":            {map[string]string{"": "x"}, `"" is not a name of an attribute`},
		"an upper-case name": {map[string]string{"Owner": "x"}, `"Owner" is not a name of an attribute: must be a lower-case letter`},
		"an equals sign":     {map[string]string{"a=b": "x"}, `"a=b" is not a name`},
		"a digit first":      {map[string]string{"0a": "x"}, `"0a" is not a name`},
		"an underscore":      {map[string]string{"a_b": "x"}, `"a_b" is not a name`},
		"no value":           {map[string]string{"owner": ""}, `"" is not a value of the attribute owner: must be 1 to 256 printable`},
		"a dash":             {map[string]string{"owner": "-"}, `"-" is not a value of the attribute owner`},
		"a value too long":   {map[string]string{"owner": strings.Repeat("x", 257)}, "is not a value of the attribute owner"},
		"a line break":       {map[string]string{"owner": "a\nplan=gold"}, `"a\nplan=gold" is not a value of the attribute owner`},
		"a control":          {map[string]string{"owner": "a\x01"}, `"a\x01" is not a value`},
		"a space before":     {map[string]string{"owner": " a"}, `" a" is not a value`},
		"a space after":      {map[string]string{"owner": "a "}, `"a " is not a value`},
		"beyond ASCII":       {map[string]string{"owner": "ü"}, `"ü" is not a value`},
	} {
		a, err := verify.NewAttributes(c.values)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !a.Empty()):
			t.Errorf("%s: error %v and %v, want no attributes and an error with %q", name, err, a.Map(), c.want)
		}
	}
}

// Keys of one owner share their attributes.
func TestEqualAttributesShareMemory(t *testing.T) {
	const keys = 10_000
	heap := func() float64 {
		var stats runtime.MemStats
		for range 3 { // a first run finds what is no longer used, and the next ones free it
			runtime.GC()
		}
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc) / keys
	}
	before := heap()
	all := make([]verify.Attributes, keys)
	for i := range all {
		all[i] = attributesOf(t, map[string]string{"owner": strings.Repeat("x", 200), "plan": strings.Repeat("y", 200)})
	}
	if held := heap() - before; held > 16 {
		t.Errorf("each of %d keys with the same attributes takes %.0f bytes for them, want about a word", keys, held)
	}
	runtime.KeepAlive(all)
}
