package monitoring

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// patience is long because the machine may be busy.
const patience = 2 * time.Minute

// TestQueriesAndDocsAgreeWithWhatIsExposed checks that alerts, dashboard and docs use only series and labels that the binaries expose, and that
// the docs list all of them.
func TestQueriesAndDocsAgreeWithWhatIsExposed(t *testing.T) {
	exposed := scrapeBoth(t)
	rules := loadRules(t)
	for _, rule := range rules.rules() {
		if rule.Record != "" {
			exposed = append(exposed, recorded(t, exposed, rule)...)
		}
	}
	t.Run("alerts", func(t *testing.T) {
		for _, rule := range rules.rules() {
			check(t, exposed, rule.Expr)
		}
	})
	t.Run("dashboard", func(t *testing.T) {
		queries := dashboardQueries(t)
		if len(queries) < 20 {
			t.Errorf("only %d queries", len(queries))
		}
		for _, query := range queries {
			check(t, exposed, query.expr)
			for _, used := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(query.legend, -1) {
				if !slices.Contains(resultLabels(t, query.expr), used[1]) {
					t.Errorf("the legend %q of %s uses a label that the query does not return", query.legend, query.expr)
				}
			}
		}
	})
	t.Run("docs", func(t *testing.T) { checkDocs(t, exposed) })
	t.Run("protocols", func(t *testing.T) { checkProtocols(t, exposed) })
}

// checkDocs checks that every exposed metric is documented, and every documented metric exposed.
func checkDocs(t *testing.T, exposed []labels.Labels) {
	names := map[string]bool{}
	for _, series := range exposed {
		name := series.Get(model.MetricNameLabel)
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if strings.HasSuffix(name, "_seconds"+part) {
				name = strings.TrimSuffix(name, part)
			}
		}
		if strings.HasPrefix(name, "apikey_") {
			names[name] = true
		}
	}
	documented := map[string]bool{}
	rows := regexp.MustCompile("(?m)^\\| `(apikey_\\w+)` \\| \\w+ \\| ([^|]*) \\|")
	for _, match := range rows.FindAllStringSubmatch(read(t, "docs", "reference", "metrics.md"), -1) {
		documented[match[1]] = true
		if !names[match[1]] {
			t.Errorf("docs/reference/metrics.md has %s, which is not exposed", match[1])
		}
		for _, label := range regexp.MustCompile(`\w+`).FindAllString(match[2], -1) {
			if !slices.ContainsFunc(exposed, func(s labels.Labels) bool {
				return strings.HasPrefix(s.Get(model.MetricNameLabel), match[1]) && s.Has(label)
			}) {
				t.Errorf("docs/reference/metrics.md gives %s a label %s, which it does not have", match[1], label)
			}
		}
	}
	for name := range names {
		if !documented[name] {
			t.Errorf("docs/reference/metrics.md lacks %s: have TestReferenceOfMetrics register it as the binary does", name)
		}
	}
	for _, page := range []string{"apikeypolicy.md", "protocols.md", "troubleshooting.md", "verifier.md", "gitops.md", "observability.md"} {
		for _, name := range regexp.MustCompile(`\bapikey_(operator|verifier)_\w+`).FindAllString(read(t, "docs", page), -1) {
			if !names[name] {
				t.Errorf("docs/%s names %s, which is not exposed", page, name)
			}
		}
	}
}

// check finds selectors that match no series, and aggregations by labels that the series don't have.
func check(t *testing.T, exposed []labels.Labels, query string) {
	t.Helper()
	parser.Inspect(parse(t, query), func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		matched := matching(exposed, selector)
		if len(matched) == 0 {
			t.Errorf("%s: no binary exposes %s", query, selector)
		}
		for _, above := range path {
			aggregation, ok := above.(*parser.AggregateExpr)
			if !ok {
				continue
			}
			if aggregation.Without {
				t.Errorf("%s: aggregates with without, whose labels can't be checked", query)
			}
			for _, by := range aggregation.Grouping {
				for _, series := range matched {
					if !series.Has(by) {
						t.Errorf("%s: groups by %s, which %s does not have", query, by, series)
						break
					}
				}
			}
		}
		return nil
	})
}

func matching(exposed []labels.Labels, selector *parser.VectorSelector) []labels.Labels {
	var matched []labels.Labels
	for _, series := range exposed {
		if !slices.ContainsFunc(selector.LabelMatchers, func(m *labels.Matcher) bool { return !m.Matches(series.Get(m.Name)) }) {
			matched = append(matched, series)
		}
	}
	return matched
}

// recorded returns the series that a recording rule makes from the exposed ones.
func recorded(t *testing.T, exposed []labels.Labels, rule rule) []labels.Labels {
	t.Helper()
	var all []labels.Labels
	by := resultLabels(t, rule.Expr)
	parser.Inspect(parse(t, rule.Expr), func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			for _, series := range matching(exposed, selector) {
				kept := labels.NewBuilder(series).Keep(by...)
				all = append(all, kept.Set(model.MetricNameLabel, rule.Record).Labels())
			}
		}
		return nil
	})
	return all
}

type query struct {
	expr, legend string
}

// dashboardQueries returns all queries of the dashboard, with values in place of Grafana's variables.
func dashboardQueries(t *testing.T) []query {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Targets []struct {
				Expr         string `json:"expr"`
				LegendFormat string `json:"legendFormat"`
			} `json:"targets"`
		} `json:"panels"`
		Templating struct {
			List []struct {
				Type  string `json:"type"`
				Query string `json:"query"`
			} `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal([]byte(read(t, "config", "grafana", "apikeys.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	values := strings.NewReplacer("$namespace", ".*", "$__rate_interval", "5m", "$__range", "6h")
	var queries []query
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries = append(queries, query{values.Replace(target.Expr), target.LegendFormat})
		}
	}
	variable := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, v := range dashboard.Templating.List {
		if v.Type == "query" {
			parts := variable.FindStringSubmatch(v.Query)
			if parts == nil {
				t.Fatalf("can't read the variable's query %s", v.Query)
			}
			queries = append(queries, query{expr: "group by (" + parts[2] + ") (" + parts[1] + ")"})
		}
	}
	return queries
}

// scrapeBoth runs the operator and the verifier until every counter and vector has a value, and returns the series that a Prometheus with
// config/prometheus would scrape.
func scrapeBoth(t *testing.T) []labels.Labels {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(patience)
	plane, err := controlplane.StartInstalled(t.Context(), controlplane.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(plane.Stop()).To(Succeed()) })
	kubectl := func(args ...string) {
		t.Helper()
		out, err := plane.RunKubectl(t.Context(), "", args...)
		g.Expect(err).NotTo(HaveOccurred(), out)
	}
	kubectl("create", "namespace", "monitoring")
	kubectl("-n", "monitoring", "create", "serviceaccount", "prometheus-k8s")
	kubectl("apply", "-f", filepath.Join("config", "prometheus", "metrics_reader.yaml"))
	prometheus, err := plane.As(t.Context(), "monitoring", "prometheus-k8s")
	g.Expect(err).NotTo(HaveOccurred())

	operator, err := plane.StartOperator(t.Context(), io.Discard, "--expiry-metric-per-key")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(operator.Stop()).To(Succeed()) })
	at, err := controlplane.FreeVerifierAddresses()
	g.Expect(err).NotTo(HaveOccurred())
	verifier, err := plane.StartVerifier(t.Context(), io.Discard, at)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(verifier.Stop()).To(Succeed()) })

	admin, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	g.Expect(err).NotTo(HaveOccurred())
	key := build.ApiKey("default", "measured", build.Attribute("owner", "team-shop"))
	g.Expect(admin.Create(t.Context(), key)).To(Succeed())
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.SecretName()}}
	g.Eventually(func(g Gomega) {
		g.Expect(admin.Get(t.Context(), client.ObjectKeyFromObject(key), key)).To(Succeed())
		g.Expect(meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)).To(BeTrue())
	}).Should(Succeed())
	g.Expect(admin.Get(t.Context(), client.ObjectKeyFromObject(secret), secret)).To(Succeed())
	g.Eventually(func() int {
		code, _ := get(t.Context(), g, verifier.HTTP+"/auth?role="+key.Spec.Roles[0], string(secret.Data[key.SecretKey()]))
		return code
	}).Should(Equal(http.StatusOK))

	expositions := map[string]string{}
	for job, address := range map[string]string{"apikey-operator": operator.Metrics, "apikey-verifier": verifier.Metrics} {
		g.Eventually(func() (code int) { // the metrics listeners open after the others
			code, expositions[job] = get(t.Context(), g, address+"/metrics", prometheus.BearerToken)
			return code
		}).Should(Equal(http.StatusOK))
	}
	return append(series(t, "apikey-operator", expositions["apikey-operator"]), series(t, "apikey-verifier", expositions["apikey-verifier"])...)
}

// series returns the series of an exposition, with the labels that a Prometheus adds for the target.
func series(t *testing.T, job, exposition string) []labels.Labels {
	t.Helper()
	var all []labels.Labels
	for line := range strings.Lines(exposition) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		metric, err := parser.NewParser(parser.Options{}).ParseMetric(line[:strings.LastIndexByte(line, ' ')])
		if err != nil {
			t.Fatal(err)
		}
		target := labels.NewBuilder(metric)
		for name, value := range map[string]string{"job": job, "namespace": controlplane.Namespace, "pod": job + "-0"} {
			if !metric.Has(name) {
				target.Set(name, value)
			}
		}
		all = append(all, target.Labels())
	}
	return all
}

func get(ctx context.Context, g Gomega, url, bearer string) (int, string) {
	insecure := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
		Timeout:   10 * time.Second,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Authorization", "Bearer "+bearer)
	response, err := insecure.Do(request)
	if err != nil {
		return 0, "" // the server does not listen yet
	}
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	return response.StatusCode, string(body)
}
