// Package lint proves that the rules of the project's English find what they are for, and nothing else. make lint runs them.
package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	vale  = "bin/vale"
	style = "hack/lint/styles/Project"
	data  = "hack/lint/testdata"
)

// alert is what Vale reports about a line.
type alert struct {
	Check    string
	Line     int
	Match    string
	Severity string
}

// run returns Vale's alerts about the files, by file.
func run(t *testing.T, files ...string) map[string][]alert {
	t.Helper()
	command := exec.CommandContext(t.Context(), vale, append([]string{"--output=JSON"}, files...)...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	// Vale exits with 1 if it reports an error, and with 2 if it can't work.
	if exit := new(exec.ExitError); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("%s: %v\n%s%s", vale, err, output, stderr.Bytes())
	}
	alerts := map[string][]alert{}
	if err := json.Unmarshal(output, &alerts); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return alerts
}

// TestRules runs each rule on a page of samples with the rule's name. The rule must report each item under "Reported". Neither it nor an
// error of another rule may be about an item under "Accepted", where the same facts are in plain English.
func TestRules(t *testing.T) {
	t.Chdir("../..")
	rules, err := filepath.Glob(style + "/*.yml")
	if err != nil || len(rules) == 0 {
		t.Fatalf("%s has no rules: %v", style, err)
	}
	for _, rule := range rules {
		name := strings.TrimSuffix(filepath.Base(rule), ".yml")
		t.Run(name, func(t *testing.T) {
			page := data + "/" + name + ".md"
			content, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			alerts := run(t, page)[page]
			counts, section := map[string]int{}, ""
			for i, line := range strings.Split(string(content), "\n") {
				if title, found := strings.CutPrefix(line, "# "); found {
					section = title
				}
				if !strings.HasPrefix(line, "- ") {
					continue
				}
				counts[section]++
				byRule, others := 0, 0
				for _, a := range alerts {
					switch {
					case a.Line != i+1:
					case a.Check == "Project."+name:
						byRule++
					case a.Severity == "error":
						others++
					}
				}
				switch {
				case section == "Reported" && byRule == 0:
					t.Errorf("%s:%d is not reported by the rule", page, i+1)
				case section == "Accepted" && byRule+others > 0:
					t.Errorf("%s:%d is reported", page, i+1)
				}
			}
			if len(counts) != 2 || counts["Reported"] == 0 || counts["Accepted"] == 0 {
				t.Errorf("%s needs items under Reported and Accepted, and no others: %v", page, counts)
			}
		})
	}
}

// TestGo proves that comments and strings of Go are read, also where a phrase continues on the next line.
func TestGo(t *testing.T) {
	t.Chdir("../..")
	file := data + "/source.go"
	alerts := run(t, file)[file]
	got := make([]string, 0, len(alerts))
	for _, a := range alerts {
		got = append(got, strings.Join(strings.Fields(a.Match), " "))
	}
	want := []string{"for ever", "is no token", "is no credential"}
	if !slices.Equal(got, want) {
		t.Errorf("reported: %q\nwanted: %q", got, want)
	}
}
