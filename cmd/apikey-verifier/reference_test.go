package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/internal/callers"
	"github.com/apikey-operator/apikey-operator/internal/feed"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/monitoring"
	"github.com/apikey-operator/apikey-operator/internal/reference"
	"github.com/apikey-operator/apikey-operator/internal/reporting"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/serve/intake"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

func TestReferenceOfFlags(t *testing.T) {
	reference.Section(t, "flags.md", component, reference.Flags(command().Flags()))
}

// emptyCluster is an API server that has no ApiKeys and no ApiRoles.
func emptyCluster(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	status := map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": http.StatusUnprocessableEntity}
	switch query := r.URL.Query(); {
	case query.Get("sendInitialEvents") != "": // an API server that lists and does not stream
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(status)
	case query.Get("watch") != "":
		<-r.Context().Done()
	default:
		kind := "ApiKeyList"
		if strings.HasSuffix(r.URL.Path, "/apiroles") {
			kind = "ApiRoleList"
		}
		_, _ = fmt.Fprintf(w, `{"kind": %q, "apiVersion": "apikey-operator.io/v1alpha1", "metadata": {"resourceVersion": "1"}, "items": []}`, kind)
	}
}

// What run registers. test/monitoring holds the page against what the binary exposes.
func TestReferenceOfMetrics(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(emptyCluster))
	t.Cleanup(server.Close) // after the context of the test, which ends the watches
	config := &rest.Config{Host: server.URL}
	registry := prometheus.NewRegistry()
	keys := index.New(time.Now(), index.Options{})
	loaded := make(chan struct{})
	logger := logr.New(&loadedSink{loaded: loaded})
	loader, err := feed.NewLoader(config, keys, feed.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	registry.MustRegister(feed.NewCollector(loader))
	checker := serve.NewChecker(serve.Options{Keys: keys, Observers: []serve.Observer{
		serve.NewMetrics(registry), serve.NewLog(logr.Discard(), false, registry),
	}})
	checker.Protocol("forward-auth")
	if _, err := reporting.New(config, keys, usage.NewMeter(time.Now()), reporting.Options{Logger: logr.Discard(), Metrics: registry}); err != nil {
		t.Fatal(err)
	}
	intake.NewGate(serve.DefaultLimits(), registry, logr.Discard(), nil)
	callers.NewPutOff(registry, monitoring.Verifier).WithLabelValues("introspection")
	go loader.Run(t.Context())
	select {
	case <-loaded:
	case <-time.After(time.Minute):
		t.Fatal("nothing was loaded in a minute")
	}
	reference.Section(t, "metrics.md", component, reference.Metrics(t, registry))
}

// loadedSink closes a channel when the loader says that all is loaded.
type loadedSink struct{ loaded chan struct{} }

func (*loadedSink) Init(logr.RuntimeInfo)            {}
func (*loadedSink) Enabled(int) bool                 { return true }
func (*loadedSink) Error(error, string, ...any)      {}
func (s *loadedSink) WithValues(...any) logr.LogSink { return s }
func (s *loadedSink) WithName(string) logr.LogSink   { return s }
func (s *loadedSink) Info(_ int, text string, _ ...any) {
	if text == "API keys loaded" {
		close(s.loaded)
	}
}

// results say what each result means and what an administrator does about it.
var results = [verify.Results]struct{ meaning, cure string }{
	verify.Allowed: {"The request may pass.", ""},
	verify.NotReady: {
		"The verifier has not loaded the keys yet, or has not heard from the API server for longer than `--max-staleness`.",
		"Look at `/readyz` and at the verifier's log: it can't reach the API server, or may not read ApiKeys or ApiRoles.",
	},
	verify.NoCredential: {
		"The request carries no token.",
		"If all requests have it, the gateway removes the header before it asks.",
	},
	verify.Malformed: {
		"What the request carries can't be a token, or it carries two different ones.",
		"Look for a typo, a token that was cut short, a prefix that is not in `--token-prefixes`, or a header that is there twice.",
	},
	verify.Unknown: {
		"No loaded key has the token's digest.",
		"The key was deleted, `--namespaces` or `--selector` leaves it out, or another key has the same digest.",
	},
	verify.Expired: {
		"The key's expiry time has passed.",
		"Create another ApiKey. The log names the old one.",
	},
	verify.Suspended: {
		"The key is suspended: its `spec.suspend` is true.",
		"Set `spec.suspend` to false, or remove it, if the key may be used again. The log names the key.",
	},
	verify.AddressDenied: {
		"The client address is outside of the key's `cidrs`, or is not known.",
		"If the log has no `address`, set `--trusted-proxies` to the gateway's addresses. Otherwise the key's `cidrs` lack the address.",
	},
	verify.BadRoute: {
		"The route's parameters can't be read, or it names neither a role nor a namespace.",
		"Correct the gateway's configuration: the log's `problem` says what is wrong. `--require-scope=false` opens routes that name neither.",
	},
	verify.RoleMissing: {
		"The key lacks a role that the route requires, or is in another namespace than the route requires.",
		"The log's `missingRole` or `wantedNamespace` says which. Create a key that has it, or correct the route.",
	},
}

func TestReferenceOfResults(t *testing.T) {
	meanings := make([][]string, 0, verify.Results)
	answers := make([][]string, 0, verify.Results)
	for result := range verify.Result(verify.Results) {
		told := results[result]
		if told.meaning == "" || told.cure == "" && result != verify.Allowed {
			t.Errorf("%s has no meaning, or nothing to do about it", result)
		}
		name := "`" + result.String() + "`"
		meanings = append(meanings, []string{name, told.meaning, told.cure})

		answer := serve.AnswerTo(result)
		status := fmt.Sprintf("%d %s", answer.Status, http.StatusText(answer.Status))
		forwardAuth, message := status, answer.Code.String()
		if answer.Challenge != "" {
			forwardAuth += ", `WWW-Authenticate: " + answer.Challenge + "`"
		}
		if answer.Message != "" {
			message += ": " + answer.Message
		}
		answers = append(answers, []string{
			name, forwardAuth, answer.Code.String() + "; the client gets " + status, review(result), introspected(result), message,
		})
	}
	reference.Section(t, "results.md", "meanings", reference.Table([]string{"result", "meaning", "what to do"}, meanings))
	reference.Section(t, "results.md", "answers", reference.Table(
		[]string{"result", "forward-auth, and HTTP in package guard", "ext_authz", "TokenReview", "introspection", "gRPC in package guard"}, answers))
}

const notHere = "does not occur: no route is asked for"

// review is what a TokenReview tells of a result.
func review(result verify.Result) string {
	switch result {
	case verify.Allowed:
		return "200, `authenticated: true`, with user and groups"
	case verify.NotReady:
		return "200, `authenticated: false`, with an `error`"
	case verify.BadRoute, verify.RoleMissing:
		return notHere
	default:
		return "200, `authenticated: false`"
	}
}

// introspected is what an introspection tells of a result.
func introspected(result verify.Result) string {
	switch result {
	case verify.Allowed:
		return "200, `\"active\": true`, with `scope`, `sub` and `exp`"
	case verify.NotReady:
		answer := serve.AnswerTo(result)
		return fmt.Sprintf("%d %s", answer.Status, http.StatusText(answer.Status))
	case verify.BadRoute, verify.RoleMissing:
		return notHere
	default:
		return "200, `\"active\": false`"
	}
}
