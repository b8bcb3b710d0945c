package monitoring

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// owned are keys that expire within a week, and who must be told.
var owned = []struct{ namespace, name, owner, receiver string }{
	{"shop", "orders", "team-shop", "team-shop"},
	{"data", "reports", "team-data", "team-data"},
	{"shop", "nobodys", "", "platform"},
	{"lab", "strangers", "team-lab", "platform"},
	{"lab", "quoted", `a "b", c`, "platform"},
}

// ownedLabels returns the labels of the alert on a key.
func ownedLabels(namespace, name, owner string) map[string]string {
	labels := map[string]string{"severity": "warning", "namespace": namespace, "name": name}
	if owner != "" {
		labels["owner"] = owner
	}
	return labels
}

// documentedRules returns the rules on single keys in docs/observability.md.
func documentedRules(t *testing.T) ruleFile {
	t.Helper()
	_, section, _ := strings.Cut(read(t, "docs", "observability.md"), "\n## Alerts on single keys\n")
	_, text, _ := strings.Cut(section, "```yaml\n")
	text, _, found := strings.Cut(text, "```")
	var object struct {
		Kind string   `json:"kind"`
		Spec ruleFile `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(text), &object); err != nil || !found || object.Kind != "PrometheusRule" || len(object.Spec.alerts()) != 1 {
		t.Fatalf("docs/observability.md has no rule on single keys: %v", err)
	}
	return object.Spec
}

// TestAlertOnSingleKeysNamesTheOwner lets promtool run the documented rule: its alert must carry the owner as a label, and only keys that expire
// within a week may have one.
func TestAlertOnSingleKeysNamesTheOwner(t *testing.T) {
	const week, atEval = 7 * 24 * 3600, 20 * 60
	type series struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	type alert struct {
		Labels      map[string]string `json:"exp_labels"`
		Annotations map[string]string `json:"exp_annotations"`
	}
	key := func(namespace, name, owner string, expires int) series {
		return series{
			Series: fmt.Sprintf("apikey_operator_key_expiry_timestamp_seconds{namespace=%q,name=%q,owner=%q,pod=\"a\"}", namespace, name, owner),
			Values: fmt.Sprintf("%dx30", expires),
		}
	}
	input := make([]series, 0, 1+len(owned))
	input = append(input, key("shop", "later", "team-shop", week+atEval+60))
	want := make([]alert, 0, len(owned))
	for _, o := range owned {
		input = append(input, key(o.namespace, o.name, o.owner, week))
		of := ""
		if o.owner != "" {
			of = " of " + o.owner
		}
		want = append(want, alert{ownedLabels(o.namespace, o.name, o.owner), map[string]string{
			"summary": fmt.Sprintf("ApiKey %s/%s%s expires in 6d 23h 40m 0s", o.namespace, o.name, of),
		}})
	}
	folder := t.TempDir()
	for name, content := range map[string]any{
		"rules.yaml": documentedRules(t),
		"tests.yaml": map[string]any{"rule_files": []string{"rules.yaml"}, "evaluation_interval": "1m", "tests": []any{map[string]any{
			"interval": "1m", "input_series": input, "alert_rule_test": []any{
				map[string]any{"eval_time": "20m", "alertname": "ApiKeyExpires", "exp_alerts": want},
				map[string]any{"eval_time": "15m", "alertname": "ApiKeyExpires", "exp_alerts": []alert{}},
			},
		}}},
	} {
		text, err := yaml.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	promtool, err := filepath.Abs(filepath.Join(root, "bin", "promtool"))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "tests.yaml"}} {
		command := exec.CommandContext(t.Context(), promtool, args...)
		command.Dir = folder
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// route is a route of Alertmanager, with the fields that docs/alertmanager.yaml uses.
type route struct {
	Receiver       string   `json:"receiver,omitempty"`
	Matchers       []string `json:"matchers,omitempty"`
	GroupBy        []string `json:"group_by,omitempty"`
	RepeatInterval string   `json:"repeat_interval,omitempty"`
	Routes         []route  `json:"routes,omitempty"`
}

var matcher = regexp.MustCompile(`^([a-z_]+)="([^"\\]+)"$`)

// receiverOf returns the receiver of an alert, by Alertmanager's rules: the first child route that matches, or else the route itself, whose
// receiver is that of its parent if it has none.
func (r route) receiverOf(t *testing.T, labels map[string]string, inherited string) string {
	t.Helper()
	if r.Receiver != "" {
		inherited = r.Receiver
	}
	for _, child := range r.Routes {
		matches := true
		for _, text := range child.Matchers {
			parts := matcher.FindStringSubmatch(text)
			if parts == nil {
				t.Fatalf("this test does not understand the matcher %s", text)
			}
			matches = matches && labels[parts[1]] == parts[2]
		}
		if matches {
			return child.receiverOf(t, labels, inherited)
		}
	}
	return inherited
}

// names returns the labels that a route and those below it use.
func (r route) names() []string {
	names := slices.Clone(r.GroupBy)
	for _, text := range r.Matchers {
		name, _, _ := strings.Cut(text, "=")
		names = append(names, name)
	}
	for _, child := range r.Routes {
		names = append(names, child.names()...)
	}
	return names
}

// TestDocumentedRouteTellsTheOwner routes the alerts of TestAlertOnSingleKeysNamesTheOwner by the documented configuration of Alertmanager.
func TestDocumentedRouteTellsTheOwner(t *testing.T) {
	var config struct {
		Route     route `json:"route"`
		Receivers []struct {
			Name     string              `json:"name"`
			Webhooks []map[string]string `json:"webhook_configs"`
		} `json:"receivers"`
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, "docs", "alertmanager.yaml")), &config); err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	for _, receiver := range config.Receivers {
		exists[receiver.Name] = len(receiver.Webhooks) > 0
	}
	rule := documentedRules(t).alerts()[0]
	has := append(resultLabels(t, rule.Expr), "alertname")
	has = slices.AppendSeq(has, maps.Keys(rule.Labels))
	for _, name := range config.Route.names() {
		if !slices.Contains(has, name) {
			t.Errorf("the route uses the label %s, but the alert has only %v", name, has)
		}
	}
	told := map[string]bool{}
	for _, o := range owned {
		labels := ownedLabels(o.namespace, o.name, o.owner)
		labels["alertname"] = rule.Alert
		if got := config.Route.receiverOf(t, labels, ""); got != o.receiver || !exists[got] {
			t.Errorf("the alert on the key of %q goes to %q, want %s", o.owner, got, o.receiver)
		}
		told[o.receiver] = true
	}
	for name := range exists {
		if !told[name] {
			t.Errorf("no key of this test has the receiver %s", name)
		}
	}
	// Other alerts of an owner's namespace are not the owner's business.
	if got := config.Route.receiverOf(t, map[string]string{"alertname": "ApiKeyOperatorAbsent", "owner": "team-shop"}, ""); got != "platform" {
		t.Errorf("another alert goes to %q, want platform", got)
	}
}
