// Package reference keeps docs/reference up to date with the flags, metrics and results of the binaries. It is for tests only: each
// test compares a section of a page, or writes it.
package reference

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the generated sections of docs/reference instead of comparing them")

// Section fails the test if a section of a page of docs/reference differs from text. With -update it writes text instead. A section
// lies between the comments <!-- NAME: generated --> and <!-- end of NAME -->.
func Section(t *testing.T, page, name, text string) {
	t.Helper()
	folder, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, page)
	old, err := os.ReadFile(path) //nolint:gosec // a page of docs/reference
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+": generated -->\n", "<!-- end of "+name+" -->\n"
	before, rest, found := strings.Cut(string(old), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("docs/reference/%s has no section between %q and %q", page, begin, end)
	}
	fresh := before + begin + "\n" + text + "\n" + end + after
	if fresh == string(old) {
		return
	}
	if !*update {
		t.Fatalf("docs/reference/%s: the section %s is not up to date: run `make generate`, and commit the result", page, name)
	}
	if err := os.WriteFile(path, []byte(fresh), 0o644); err != nil { //nolint:gosec // a page that everybody may read
		t.Fatal(err)
	}
}

// pages returns the folder docs/reference of the repository that the test runs in.
func pages() (string, error) {
	folder, err := os.Getwd()
	for err == nil {
		candidate := filepath.Join(folder, "docs", "reference")
		if _, missing := os.Stat(candidate); missing == nil {
			return candidate, nil
		}
		if parent := filepath.Dir(folder); parent != folder {
			folder = parent
			continue
		}
		err = errors.New("no docs/reference in the folders above")
	}
	return "", err
}

// Table returns a table in Markdown.
func Table(header []string, rows [][]string) string {
	var text strings.Builder
	line := func(cells []string) {
		escaped := make([]string, len(cells))
		for i, cell := range cells {
			escaped[i] = strings.ReplaceAll(strings.ReplaceAll(cell, "|", `\|`), "\n", " ")
		}
		text.WriteString("| " + strings.Join(escaped, " | ") + " |\n")
	}
	line(header)
	text.WriteString("|" + strings.Repeat("---|", len(header)) + "\n")
	for _, row := range rows {
		line(row)
	}
	return text.String()
}

// Flags is the table of a set of flags, in their own order.
func Flags(flags *pflag.FlagSet) string {
	var rows [][]string
	flags.VisitAll(func(f *pflag.Flag) {
		value := ""
		if f.DefValue != "" && f.DefValue != "[]" {
			value = "`" + strings.Trim(f.DefValue, "[]") + "`"
		}
		rows = append(rows, []string{"`--" + f.Name + "`", f.Value.Type(), value, f.Usage})
	})
	return Table([]string{"flag", "type", "default", "meaning"}, rows)
}

var descName = regexp.MustCompile(`^Desc{fqName: "([^"]*)"`)

// Metrics is the table of a registry's metrics, by name. It fails for one that has no series, since its type is not known then.
func Metrics(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	rows := make([][]string, 0, len(families))
	names := make([]string, 0, len(families))
	for _, family := range families {
		pairs := family.GetMetric()[0].GetLabel()
		labels := make([]string, 0, len(pairs))
		for _, label := range pairs {
			labels = append(labels, "`"+label.GetName()+"`")
		}
		slices.Sort(labels)
		names = append(names, family.GetName())
		rows = append(rows, []string{
			"`" + family.GetName() + "`", strings.ToLower(family.GetType().String()), strings.Join(labels, ", "), family.GetHelp(),
		})
	}
	descs := make(chan *prometheus.Desc)
	go func() { defer close(descs); registry.Describe(descs) }()
	var lacking []string
	for desc := range descs {
		name := descName.FindStringSubmatch(desc.String())
		if name == nil {
			lacking = append(lacking, fmt.Sprintf("the name of %s", desc))
		} else if !slices.Contains(names, name[1]) {
			lacking = append(lacking, "a series of "+name[1])
		}
	}
	if len(lacking) > 0 {
		t.Fatalf("no %s: have the test make one", strings.Join(lacking, ", no "))
	}
	return Table([]string{"metric", "type", "labels", "meaning"}, rows)
}
