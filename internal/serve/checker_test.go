package serve_test

import (
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

func TestFloodOfRefusalsIsCountedAndNotLogged(t *testing.T) {
	const n = 1000
	lines := 0
	registry := prometheus.NewRegistry()
	checker := serve.NewChecker(serve.Options{
		Keys: index.New(index.Options{}), Metrics: registry,
		Logger: funcr.New(func(string, string) { lines++ }, funcr.Options{}),
	})
	protocol := checker.Protocol("test")
	for range n {
		protocol.Check(&verify.Request{}, "")
	}
	if lines < 100 || lines > n/2 {
		t.Errorf("%d of %d refusals were logged", lines, n)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			counted[family.GetName()] += metric.GetCounter().GetValue()
		}
	}
	if counted["apikey_verifier_decisions_total"] != n || counted["apikey_verifier_refusals_unlogged_total"] != float64(n-lines) {
		t.Errorf("counted %v, logged %d", counted, lines)
	}
}

func TestTraceOfARefusalIsLogged(t *testing.T) {
	const trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for header, logged := range map[string]bool{
		"00-" + trace + "-" + span + "-01":          true,
		"01-" + trace + "-" + span + "-01-and-more": true,
		"":        false,
		"garbage": false,
		"00-" + trace + "-" + span + "-01-and-more":                     false,
		"ff-" + trace + "-" + span + "-01":                              false,
		"00-" + strings.ToUpper(trace) + "-" + span + "-01":             false,
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01":            false,
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":           false,
		"00-" + trace + "-" + span + "-":                                false,
		"00_" + trace + "-" + span + "-01":                              false,
		"00-" + trace + "\n" + span + "-01":                             false,
		"00-" + strings.Repeat("x", 100_000) + trace + "-" + span + "-": false,
	} {
		var log strings.Builder
		checker := serve.NewChecker(serve.Options{
			Keys: index.New(index.Options{}), Metrics: prometheus.NewRegistry(),
			Logger: funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{}),
		})
		checker.Protocol("test").Check(&verify.Request{}, header)
		if got := strings.Contains(log.String(), `"traceID"="`+trace+`" "spanID"="`+span+`"`); got != logged {
			t.Errorf("%.80q: %s", header, log.String())
		}
	}
}

func TestIsIdentity(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Apikey-Name": true, "x-apikey-": true, "X_APIKEY_NAME": true, "x.apikey.uid": true, "X-Apikey_Roles": true, "x-apikey-anything": true,
		"X-Api-Key": false, "x-apikey": false, "X-Apikeys": false, "apikey-name": false, "": false, "xx-apikey-name": false,
	} {
		if serve.IsIdentity(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}
