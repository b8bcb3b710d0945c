package grant

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// attributesArePresent requires a key to have each attribute of Terms.RequiredAttributes.
func attributesArePresent(terms Terms) (check, error) {
	if len(terms.RequiredAttributes) == 0 {
		return nil, nil
	}
	return func(q *question) refusal {
		var missing []string
		for _, name := range terms.RequiredAttributes {
			if _, present := q.Attributes[name]; !present {
				missing = append(missing, name)
			}
		}
		if len(missing) == 0 {
			return refusal{}
		}
		what := "attribute"
		if len(missing) > 1 {
			what = "attributes"
		}
		return refusal{what: fmt.Sprintf("a key without the %s %s (it requires %s)", what, enumerate(missing), enumerate(terms.RequiredAttributes))}
	}, nil
}

// attributesAreAllowed requires that each attribute of a key that Terms.AllowedAttributes lists has one of the values there. Values are
// compared as a whole. A key without the attribute is not refused.
func attributesAreAllowed(terms Terms) (check, error) {
	if len(terms.AllowedAttributes) == 0 {
		return nil, nil
	}
	names := slices.Sorted(maps.Keys(terms.AllowedAttributes)) // so that a message is always the same
	return func(q *question) refusal {
		var denied []string
		for _, name := range names {
			value, present := q.Attributes[name]
			if allowed := terms.AllowedAttributes[name]; present && !slices.Contains(allowed, value) {
				denied = append(denied, fmt.Sprintf("the attribute %s: %q (it allows %s)", name, value, enumerate(quoted(allowed))))
			}
		}
		return refusal{what: strings.Join(denied, ", and ")}
	}, nil
}

func quoted(values []string) []string {
	all := make([]string, len(values))
	for i, value := range values {
		all[i] = strconv.Quote(value)
	}
	return all
}
