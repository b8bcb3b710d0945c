package serve_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

func TestRefusalsBeyondTheLogRateAreCounted(t *testing.T) {
	const n = 1000
	lines := 0
	registry := prometheus.NewRegistry()
	checker := serve.NewChecker(serve.Options{
		Keys: index.New(time.Now(), index.Options{}),
		Observers: []serve.Observer{
			serve.NewMetrics(registry), serve.NewLog(funcr.New(func(string, string) { lines++ }, funcr.Options{}), false, registry),
		},
	})
	protocol := checker.Protocol("test")
	for range n {
		protocol.Check(&verify.Request{}, "")
	}
	if lines < 100 || lines > n/2 {
		t.Errorf("%d of %d refusals were logged, want 100 to %d", lines, n, n/2)
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
		t.Errorf("metrics %v after %d refusals, %d of them logged", counted, n, lines)
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
			Keys: index.New(time.Now(), index.Options{}),
			Observers: []serve.Observer{
				serve.NewLog(funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{}), false, prometheus.NewRegistry()),
			},
		})
		checker.Protocol("test").Check(&verify.Request{}, header)
		if got := strings.Contains(log.String(), `"traceID"="`+trace+`" "spanID"="`+span+`"`); got != logged {
			t.Errorf("traceparent %.80q: trace is logged: %t, want %t; log: %s", header, got, logged, log.String())
		}
	}
}

func TestIsIdentity(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Apikey-Name": true, "x-apikey-": true, "X_APIKEY_NAME": true, "x.apikey.uid": true, "X-Apikey_Roles": true, "x-apikey-anything": true,
		"X-Api-Key": false, "x-apikey": false, "X-Apikeys": false, "apikey-name": false, "": false, "xx-apikey-name": false,
	} {
		if serve.IsIdentity(name) != want {
			t.Errorf("IsIdentity(%q) = %t, want %t", name, !want, want)
		}
	}
}

// witness is an observer that records the protocols and the decisions that it is notified of.
type witness struct {
	protocols     []string
	decisions     []string
	wantsRequests bool
	panics        int
}

func (w *witness) Protocol(name string) serve.ProtocolObserver {
	w.protocols = append(w.protocols, name)
	return w
}

func (w *witness) Decided(decision verify.Decision, at time.Time, took time.Duration) func(serve.Asked) {
	w.decisions = append(w.decisions, fmt.Sprintf("%v at %d, took %v", decision.Result, at.Unix(), took))
	if !w.wantsRequests {
		return nil
	}
	return func(asked serve.Asked) {
		w.decisions = append(w.decisions, fmt.Sprintf("%v for %v, %s", asked.Address, asked.Route.Roles, asked.Traceparent))
	}
}

func (w *witness) Panicked(any) { w.panics++ }

func TestObserversAreNotified(t *testing.T) {
	plain, detailed := &witness{}, &witness{wantsRequests: true}
	moment := time.Unix(1_000, 0)
	checker := serve.NewChecker(serve.Options{
		Keys: index.New(time.Now(), index.Options{}), Observers: []serve.Observer{plain, detailed},
		Now: func() time.Time {
			moment = moment.Add(time.Millisecond)
			return moment
		},
	})
	protocol := checker.Protocol("one")
	checker.Protocol("other")
	protocol.Check(&verify.Request{Address: netip.MustParseAddr("192.0.2.1"), Route: verify.Route{Roles: []string{"read"}}}, "trace")
	protocol.Panicked("a bug")
	for _, w := range []*witness{plain, detailed} {
		want := []string{"NotReady at 1000, took 1ms"}
		if w.wantsRequests {
			want = append(want, "192.0.2.1 for [read], trace")
		}
		if !slices.Equal(w.decisions, want) || w.panics != 1 || !slices.Equal(w.protocols, []string{"one", "other"}) {
			t.Errorf("wants requests %t: got %q for the protocols %q and %d panics, want %q and 1 panic",
				w.wantsRequests, w.decisions, w.protocols, w.panics, want)
		}
	}
}

// Every request passes through all observers.
func TestObserversCostNoAllocation(t *testing.T) {
	registry := prometheus.NewRegistry()
	checker := serve.NewChecker(serve.Options{
		Keys:      index.New(time.Now(), index.Options{}),
		Observers: []serve.Observer{serve.NewMetrics(registry), serve.NewLog(logr.Discard(), false, registry)},
		Now:       func() time.Time { return time.Unix(1_000, 0) }, // the rate limiter of the log gets no new tokens
	})
	protocol := checker.Protocol("test")
	check := func() { protocol.Check(&verify.Request{}, "") }
	for range 200 { // more than the burst of the log
		check()
	}
	if allocations := testing.AllocsPerRun(1000, check); allocations != 0 {
		t.Errorf("%v allocations for a request, want 0", allocations)
	}
}
