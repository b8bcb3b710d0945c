// Package reference writes the pages of docs/reference that need more than the binaries' own modules.
package reference

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/apikey-operator/apikey-operator/internal/reference"
)

var chart = filepath.Join("..", "..", "charts", "apikey-operator")

// schema is as much of a JSON schema as values.schema.json uses.
type schema struct {
	Ref         string            `json:"$ref"`
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Pattern     string            `json:"pattern"`
	Enum        []string          `json:"enum"`
	Minimum     *int              `json:"minimum"`
	Maximum     *int              `json:"maximum"`
	OneOf       []schema          `json:"oneOf"`
	Items       *schema           `json:"items"`
	Properties  map[string]schema `json:"properties"`
	Defs        map[string]schema `json:"$defs"`
}

func TestReferenceOfValues(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values yaml.Node
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	l := &lister{t: t, definitions: root.Defs}
	l.list("", values.Content[0], root)
	if len(l.rows) < 60 {
		t.Fatalf("only %d values", len(l.rows))
	}
	reference.Section(t, "values.md", "values", reference.Table([]string{"value", "default", "accepted", "meaning"}, l.rows))
}

// lister gathers a row for each value, and one for each group of values that has a comment.
type lister struct {
	t           *testing.T
	definitions map[string]schema
	rows        [][]string
}

func (l *lister) list(prefix string, mapping *yaml.Node, group schema) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		name, value := mapping.Content[i], mapping.Content[i+1]
		path := prefix + name.Value
		known, ok := group.Properties[name.Value]
		if !ok {
			l.t.Errorf("values.schema.json lacks %s", path)
			continue
		}
		known = l.resolve(known)
		meaning := comment(name.HeadComment)
		if value.Kind == yaml.MappingNode && len(known.Properties) > 0 {
			if meaning != "" {
				l.rows = append(l.rows, []string{"`" + path + "`", "", "", meaning})
			}
			l.list(path+".", value, known)
			continue
		}
		l.rows = append(l.rows, []string{"`" + path + "`", "`" + l.inline(value) + "`", l.accepted(known), meaning})
	}
}

func (l *lister) resolve(s schema) schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
		return l.definitions[name]
	}
	return s
}

// accepted says in words what a schema takes.
func (l *lister) accepted(s schema) string {
	s = l.resolve(s)
	switch {
	case len(s.OneOf) > 0:
		each := make([]string, len(s.OneOf))
		for i, one := range s.OneOf {
			each[i] = l.accepted(one)
		}
		return strings.Join(each, ", or ")
	case len(s.Enum) > 0:
		return "`" + strings.Join(s.Enum, "`, `") + "`"
	case s.Items != nil && s.Items.Type+s.Items.Ref != "":
		return "list; each " + l.accepted(*s.Items)
	case s.Description != "":
		return s.Type + ": " + s.Description
	case s.Pattern != "":
		return s.Type + ": `" + s.Pattern + "`"
	case s.Minimum != nil && s.Maximum != nil:
		return fmt.Sprintf("%s from %d to %d", s.Type, *s.Minimum, *s.Maximum)
	case s.Minimum != nil:
		return fmt.Sprintf("%s, at least %d", s.Type, *s.Minimum)
	}
	return s.Type
}

// inline is a value as YAML on one line.
func (l *lister) inline(value *yaml.Node) string {
	var plain any
	if err := value.Decode(&plain); err != nil {
		l.t.Fatal(err)
	}
	text, err := json.Marshal(plain) // JSON is YAML
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// comment is the text of a comment above a value. A paragraph of its own, such as the file's first, belongs to no value.
func comment(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	lines := strings.Split(paragraphs[len(paragraphs)-1], "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(strings.TrimPrefix(line, "#"))
	}
	return strings.Join(lines, " ")
}
