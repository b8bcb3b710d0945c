package serve_test

import (
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// oneKey finds the same key for every digest.
type oneKey struct{ key *verify.Key }

func (k oneKey) Find(token.Digest, time.Time) (*verify.Key, bool) { return k.key, true }

func (oneKey) Ready(time.Time) bool { return true }

// BenchmarkCheck measures a decision together with its observers: for a request that is accepted, and for a
// refusal beyond the rate limit of the log.
func BenchmarkCheck(b *testing.B) {
	credential := verify.Reader{Prefixes: []string{token.DefaultPrefix}}.Token(token.Mint(token.DefaultPrefix).Reveal())
	for name, keys := range map[string]oneKey{
		"allowed": {&verify.Key{Deadline: expiry.Never(), Networks: access.AnyNetwork()}},
		"refused": {&verify.Key{}},
	} {
		b.Run(name, func(b *testing.B) {
			registry := prometheus.NewRegistry()
			protocol := serve.NewChecker(serve.Options{Keys: keys, Observers: []serve.Observer{
				serve.NewMetrics(registry), serve.NewLog(logr.Discard(), false, registry),
			}}).Protocol("test")
			b.ReportAllocs()
			for b.Loop() {
				request := verify.Request{Credential: credential}
				if protocol.Check(&request, "").Allowed() != (name == "allowed") {
					b.Fatalf("got another decision than %s", name)
				}
			}
		})
	}
}
