package verify

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unique"
)

// NoAttribute stands for an attribute that a key does not have, where a protocol needs a value. No attribute has this
// value.
const NoAttribute = "-"

// Attributes say whose key it is, for gateways and services. No decision depends on them. The zero value is empty.
// Equal Attributes share their memory, and == compares them.
type Attributes struct {
	// text holds name, "=", value and a line break for each attribute, sorted by name. It is the zero value if there are
	// none, so that a key without attributes needs one word for them.
	text unique.Handle[string]
}

// Limits of the schema of ApiKey.
const (
	maxAttributes     = 16
	maxAttributeName  = 63
	maxAttributeValue = 256
)

// NewAttributes returns the attributes with these names and values, or an error if one of them is not as the schema of
// ApiKey requires it: a value with a line break, for example, would end a header.
func NewAttributes(values map[string]string) (Attributes, error) {
	if len(values) == 0 {
		return Attributes{}, nil
	}
	if len(values) > maxAttributes {
		return Attributes{}, fmt.Errorf("too many attributes: %d, must be at most %d", len(values), maxAttributes)
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := ValidateAttributeName(name); err != nil {
			return Attributes{}, err
		}
		value := values[name]
		if !isAttributeValue(value) {
			return Attributes{}, fmt.Errorf("%.*q is not a value of the attribute %s: must be 1 to %d printable ASCII characters that neither "+
				"start nor end with a space, and not %s", maxAttributeValue, value, name, maxAttributeValue, NoAttribute)
		}
		text.WriteString(name + "=" + value + "\n")
	}
	return Attributes{unique.Make(text.String())}, nil
}

// ValidateAttributeName returns an error if name isn't a name of an attribute, as in the schema of ApiKey.
func ValidateAttributeName(name string) error {
	valid := name != "" && len(name) <= maxAttributeName && name[0] >= 'a' && name[0] <= 'z'
	for i := range len(name) {
		c := name[i]
		valid = valid && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !valid {
		return fmt.Errorf("%.*q is not a name of an attribute: must be a lower-case letter, followed by at most %d lower-case letters, digits "+
			"and '-', such as owner or cost-center", maxAttributeName, name, maxAttributeName-1)
	}
	return nil
}

func isAttributeValue(value string) bool {
	if value == "" || len(value) > maxAttributeValue || value == NoAttribute || value != strings.Trim(value, " ") {
		return false
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return true
}

// Empty reports whether there are no attributes.
func (a Attributes) Empty() bool { return a == Attributes{} }

// All returns the names and values, sorted by name.
func (a Attributes) All() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		if a.Empty() {
			return
		}
		for line := range strings.Lines(a.text.Value()) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if !yield(name, value) {
				return
			}
		}
	}
}

// Get returns the value of the attribute, or [NoAttribute] if there is none.
func (a Attributes) Get(name string) string {
	for n, value := range a.All() {
		if n == name {
			return value
		}
	}
	return NoAttribute
}

// Map returns the values by name in a new map, or nil if there are none.
func (a Attributes) Map() map[string]string {
	if a.Empty() {
		return nil
	}
	return maps.Collect(a.All())
}
