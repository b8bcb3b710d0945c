// Package monitoring tests the alert rules, the dashboard and the docs against the metrics that the binaries expose.
package monitoring

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

var root = filepath.Join("..", "..")

// rule is an alert or a recording rule.
type rule struct {
	Alert       string            `json:"alert,omitempty"`
	Record      string            `json:"record,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ruleFile is the format of a rule file for Prometheus, and of the spec of a PrometheusRule.
type ruleFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

func (f ruleFile) rules() []rule {
	var all []rule
	for _, group := range f.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

func (f ruleFile) alerts() []rule {
	return slices.DeleteFunc(f.rules(), func(r rule) bool { return r.Alert == "" })
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// loadRules returns the rules of config/prometheus.
func loadRules(t *testing.T) ruleFile {
	t.Helper()
	var all ruleFile
	for _, name := range []string{"rules.yaml", "unused_keys.yaml"} {
		var object struct {
			APIVersion string         `json:"apiVersion"`
			Kind       string         `json:"kind"`
			Metadata   map[string]any `json:"metadata"`
			Spec       ruleFile       `json:"spec"`
		}
		if err := yaml.UnmarshalStrict([]byte(read(t, "config", "prometheus", name)), &object); err != nil {
			t.Fatal(err)
		}
		all.Groups = append(all.Groups, object.Spec.Groups...)
	}
	if len(all.alerts()) < 10 {
		t.Fatalf("only %d alerts", len(all.alerts()))
	}
	return all
}

// TestRulesByPromtool lets Prometheus' own tool check the rules and run them on the series in alerts_test.yaml.
func TestRulesByPromtool(t *testing.T) {
	promtool, err := filepath.Abs(filepath.Join(root, "bin", "promtool"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(promtool); err != nil {
		t.Fatalf("%v: make bin/promtool builds it", err)
	}
	folder := t.TempDir()
	rules, err := yaml.Marshal(loadRules(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"rules.yaml": string(rules), "alerts_test.yaml": read(t, "test", "monitoring", "alerts_test.yaml")} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"},
		{"test", "rules", "alerts_test.yaml"},
	} {
		command := exec.CommandContext(t.Context(), promtool, args...)
		command.Dir = folder
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestEveryAlertIsTestedBothWays(t *testing.T) {
	var file struct {
		Tests []struct {
			Queries []struct {
				Expr    string `json:"expr"`
				Samples []any  `json:"exp_samples"`
			} `json:"promql_expr_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "test", "monitoring", "alerts_test.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	fires, rests := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, query := range test.Queries {
			if len(query.Samples) > 0 {
				fires[query.Expr] = true
			} else {
				rests[query.Expr] = true
			}
		}
	}
	for _, alert := range loadRules(t).alerts() {
		firing := fmt.Sprintf("ALERTS{alertname=%q,alertstate=\"firing\"}", alert.Alert)
		if !fires[firing] || !rests[firing] {
			t.Errorf("%s: tested firing: %v, not firing: %v", alert.Alert, fires[firing], rests[firing])
		}
	}
}

var label = regexp.MustCompile(`\$labels\.(\w+)`)

// TestEveryAlertSaysWhatToDo checks that each alert has a severity and a section in the docs, and that its texts use only labels that it has. It
// also checks that the docs have no section without an alert.
func TestEveryAlertSaysWhatToDo(t *testing.T) {
	const page = "https://github.com/apikey-operator/apikey-operator/blob/main/docs/observability.md#"
	_, runbook, found := strings.Cut(read(t, "docs", "observability.md"), "\n## Alerts\n")
	if !found {
		t.Fatal("docs/observability.md has no section Alerts")
	}
	runbook, _, _ = strings.Cut(runbook, "\n## ")
	sections := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(runbook, -1) {
		sections[match[1]] = true
	}
	for _, alert := range loadRules(t).alerts() {
		if !slices.Contains([]string{"critical", "warning", "info"}, alert.Labels["severity"]) {
			t.Errorf("%s: severity %q", alert.Alert, alert.Labels["severity"])
		}
		if !sections[alert.Alert] {
			t.Errorf("%s has no section in docs/observability.md", alert.Alert)
		}
		delete(sections, alert.Alert)
		if want := page + strings.ToLower(alert.Alert); alert.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %s, want %s", alert.Alert, alert.Annotations["runbook_url"], want)
		}
		has := resultLabels(t, alert.Expr)
		for _, name := range []string{"summary", "description"} {
			text := alert.Annotations[name]
			if text == "" {
				t.Errorf("%s: no %s", alert.Alert, name)
			}
			for _, used := range label.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(has, used[1]) {
					t.Errorf("%s: its %s uses the label %s, but it has only %v", alert.Alert, name, used[1], has)
				}
			}
		}
	}
	for name := range sections {
		t.Errorf("docs/observability.md has a section for %s, but there is no such alert", name)
	}
}

func parse(t *testing.T, query string) parser.Expr {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return expr
}

// resultLabels returns the labels by which a query's outermost aggregation groups. For a query of recorded series, it returns those of the
// recording rule.
func resultLabels(t *testing.T, query string) []string {
	t.Helper()
	var labels []string
	parser.Inspect(parse(t, query), func(node parser.Node, _ []parser.Node) error {
		if labels != nil {
			return nil
		}
		switch node := node.(type) {
		case *parser.AggregateExpr:
			labels = slices.Clone(node.Grouping)
		case *parser.VectorSelector:
			for _, rule := range loadRules(t).rules() {
				if rule.Record != "" && rule.Record == node.Name {
					labels = resultLabels(t, rule.Expr)
				}
			}
		}
		return nil
	})
	return labels
}
