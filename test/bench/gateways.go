package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/gateway"
)

// gatewayRole is the role that the routes of docs/gateways require.
const gatewayRole = "org.permission.order.read"

// benchGateways measures requests through real gateways: without a check, with a check by a server that does nothing, twice, by one that only
// answers with an identity, and by the verifier. How far the two runs of the empty check are apart says what can't be told from the machine's
// noise. The server with an identity shows what it costs to pass one on. No check can avoid that.
func benchGateways(ctx context.Context, rounds int, during time.Duration) (err error) {
	plane, seeder, err := seededPlane(ctx, smallFleet, gatewayRole)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	at, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return err
	}
	v, err := plane.StartVerifier(ctx, io.Discard, at, "--trusted-proxies=127.0.0.1/32", "--drain-delay=0s")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Stop()) }()
	if err := v.WaitHTTP(ctx, v.Probes+"/readyz"); err != nil {
		return err
	}
	empty, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return err
	}
	floor, err := startEmptyServers(ctx, empty)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, floor.Stop()) }()
	identity, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return err
	}
	constant, err := startEmptyServers(ctx, identity, "-empty-identity")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, constant.Stop()) }()

	fmt.Printf("\nThrough real gateways, with 10,000 keys: requests a second of 8 connections in turns, and p99 at %d requests a second; median of %d\n\n",
		gatewayRate, rounds)
	fmt.Println("| gateway | check | requests/s | of the empty check | p50 | p99 | processor time of a request: gateway, check | goal |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, kind := range []struct {
		name    string
		start   func(context.Context, string, string, gateway.Backends, io.Writer) (*gateway.Gateway, error)
		noCheck func(string) string
	}{
		{"nginx", gateway.Nginx, func(site string) string {
			return strings.Replace(site, "        auth_request /_apikey_orders;\n", "", 1)
		}},
		{"traefik", gateway.Traefik, func(site string) string {
			return strings.Replace(site, "middlewares: [{name: apikey-orders}, {name: apikey-removed}]", "middlewares: [{name: apikey-removed}]", 1)
		}},
	} {
		if _, ok := gateway.Find(plane.Root, kind.name); !ok {
			fmt.Printf("| %s | not installed | | | | | | |\n", kind.name)
			continue
		}
		checks := []struct {
			name     string
			verifier string
			pid      int // of the server that checks and does nothing else
			edit     func(string) string
		}{
			{"none", empty.HTTP, 0, kind.noCheck},
			{"an empty server", empty.HTTP, 0, nil},
			{"an empty server, again", empty.HTTP, 0, nil},
			{"an empty server, with an identity", identity.HTTP, constant.Pid(), nil},
			{"apikey-verifier", at.HTTP, v.Pid(), nil},
		}
		results := make([]gatewayResult, len(checks))
		for range rounds {
			for i, check := range checks {
				r, err := measureGateway(ctx, plane.Root, kind.start, gateway.Backends{
					Verifiers: []string{check.verifier}, API: empty.HTTP, Edit: check.edit,
				}, check.pid, seeder.tokens, during)
				if err != nil {
					return fmt.Errorf("%s, check by %s: %w", kind.name, check.name, err)
				}
				results[i].rates = append(results[i].rates, r.rates...)
				results[i].p50s, results[i].p99s = append(results[i].p50s, r.p50s...), append(results[i].p99s, r.p99s...)
				results[i].gateways, results[i].checks = append(results[i].gateways, r.gateways...), append(results[i].checks, r.checks...)
			}
		}
		base := middle(results[1].rates)
		slowest, latest := worstRounds(results[1], results[2])
		for i, check := range checks {
			spent := fmt.Sprintf("%.0f µs", middle(results[i].gateways))
			if check.pid != 0 {
				spent += fmt.Sprintf(", %.0f µs", middle(results[i].checks))
			}
			wanted := ""
			if check.pid == v.Pid() {
				wanted = goal(fmt.Sprintf("%.0f requests/s and p99 %.1f ms, the worst rounds of the empty check", slowest, latest),
					middle(results[i].rates) >= slowest && middle(results[i].p99s) <= latest)
			}
			fmt.Printf("| %s | %s | %.0f | %.2f | %.1f ms | %.1f ms | %s | %s |\n", kind.name, check.name, middle(results[i].rates),
				middle(results[i].rates)/base, middle(results[i].p50s), middle(results[i].p99s), spent, wanted)
		}
	}
	return nil
}

// worstRounds returns the lowest rate and the highest p99 of single rounds. A check that is between them and the best can't be told from
// these.
func worstRounds(of ...gatewayResult) (rate, p99 float64) {
	rate, p99 = math.Inf(1), 0
	for _, r := range of {
		rate, p99 = min(rate, slices.Min(r.rates)), max(p99, slices.Max(r.p99s))
	}
	return rate, p99
}

// gatewayRate is the fixed rate at which latencies through a gateway are measured.
const gatewayRate = 500

// gatewayResult has rates in requests a second, latencies in milliseconds, and the processor time of a request in microseconds.
type gatewayResult struct{ rates, p50s, p99s, gateways, checks []float64 }

func measureGateway(
	ctx context.Context, root string, start func(context.Context, string, string, gateway.Backends, io.Writer) (*gateway.Gateway, error),
	behind gateway.Backends, check int, tokens []seeded, during time.Duration,
) (r gatewayResult, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	g, err := start(ctx, root, dir, behind, io.Discard)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, g.Stop()) }()
	connect := connectURL(g.URL+"/orders/1", nil)
	warm, cancel := context.WithTimeout(ctx, during/5)
	_, err = load(warm, tokens, connect)
	cancel()
	if err != nil {
		return r, err
	}
	spent := func() (of [2]time.Duration, err error) {
		if of[0], err = groupTime(g.Pid()); err == nil && check != 0 {
			of[1], err = cpuTime(check)
		}
		return of, err
	}
	before, err := spent()
	if err != nil {
		return r, err
	}
	limit, cancel := context.WithTimeout(ctx, during)
	begun := time.Now()
	n, err := load(limit, tokens, connect)
	cancel()
	if err != nil {
		return r, err
	}
	rate := float64(n) / time.Since(begun).Seconds()
	after, err := spent()
	if err != nil {
		return r, err
	}
	each := func(i int) []float64 { return []float64{float64((after[i] - before[i]).Microseconds()) / float64(n)} }
	took, err := openLoad(ctx, tokens, connect, gatewayRate, during)
	if err != nil {
		return r, err
	}
	return gatewayResult{
		rates:    []float64{rate},
		p50s:     []float64{quantile(took, 0.5).Seconds() * 1000},
		p99s:     []float64{quantile(took, 0.99).Seconds() * 1000},
		gateways: each(0), checks: each(1),
	}, nil
}
