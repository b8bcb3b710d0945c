package serve_test

import (
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
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

// BenchmarkNotingUse compares decisions without and with an observer that notes the use of keys, from the text of the header to the decision.
// Both run in turns, so that whatever else the machine does affects both. It reports medians of the processor time of a decision, in nanoseconds,
// and of the ratio within a pair of runs.
func BenchmarkNotingUse(b *testing.B) {
	b.Run("1,000,000 keys", func(b *testing.B) { benchmarkNotingUse(b, 1_000_000, 1) })
	b.Run("one key on all cores", func(b *testing.B) { benchmarkNotingUse(b, 1, runtime.GOMAXPROCS(0)) })
}

func benchmarkNotingUse(b *testing.B, keys, cores int) {
	const pairs, decisions = 101, 20_000
	started := time.Now() // with a monotonic reading, as in a verifier
	x := index.New(started, index.Options{MaxStaleness: time.Hour})
	source := x.Source()
	headers, entries := make([][]string, 0, 1000), make([]index.Entry, keys)
	for i := range entries {
		minted := token.Mint(token.DefaultPrefix)
		name := strconv.Itoa(i)
		entries[i] = index.Entry{
			ID: index.ID{Namespace: "bench", Name: name}, UID: name, Roles: []string{"org.permission.customer.read"}, Networks: access.AnyNetwork(),
			Credentials: []index.Credential{{Digest: minted.Digest(), Deadline: expiry.Never()}},
		}
		if len(headers) < cap(headers) && i%max(keys/cap(headers), 1) == 0 {
			headers = append(headers, []string{"Bearer " + minted.Reveal()})
		}
	}
	source.Replace(entries)
	source.Heard(started)
	reader, route := verify.Reader{Prefixes: []string{token.DefaultPrefix}}, verify.NewRoute([]string{"org.permission.customer.read"}, nil)
	// run returns the processor time of a decision.
	run := func(observers ...serve.Observer) float64 {
		registry := prometheus.NewRegistry()
		protocol := serve.NewChecker(serve.Options{Keys: x, Observers: append([]serve.Observer{
			serve.NewMetrics(registry), serve.NewLog(logr.Discard(), false, registry),
		}, observers...)}).Protocol("test")
		var group sync.WaitGroup
		began := processorTime(b)
		for range cores {
			group.Go(func() {
				for i := range decisions {
					request := verify.Request{Credential: reader.Headers(headers[i%len(headers)], nil), Route: route}
					if !protocol.Check(&request, "").Allowed() {
						b.Error("the token of a key was refused")
						return
					}
				}
			})
		}
		group.Wait()
		return float64((processorTime(b) - began).Nanoseconds()) / float64(decisions*cores)
	}
	runtime.GC()
	without, with, ratio := make([]float64, 0, pairs*b.N), make([]float64, 0, pairs*b.N), make([]float64, 0, pairs*b.N)
	for range b.N {
		meter := usage.NewMeter(started)
		for pair := range pairs {
			var a, c float64
			if pair%2 == 0 {
				a = run()
				c = run(serve.NewUsage(meter))
			} else {
				c = run(serve.NewUsage(meter))
				a = run()
			}
			without, with, ratio = append(without, a), append(with, c), append(ratio, c/a)
		}
	}
	median := func(values []float64) float64 {
		slices.Sort(values)
		return values[len(values)/2]
	}
	b.ReportMetric(0, "ns/op") // the time of all pairs says nothing
	b.ReportMetric(median(without), "ns-without")
	b.ReportMetric(median(with), "ns-with")
	b.ReportMetric(median(ratio), "with/without")
}

// processorTime returns the processor time that this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
