package verify_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

func TestScripts(t *testing.T) {
	script.Run(t, "decision", func(_ *testing.T, world *script.World, ask script.Ask) (script.Answer, bool) {
		if len(ask.Params) > 0 {
			return script.Answer{}, false
		}
		decision := world.Protocol.Check(&verify.Request{
			Credential: world.Reader.Headers(ask.Authorization, ask.APIKey),
			Address:    world.Proxies.Client(ask.From, ask.ForwardedFor),
			Route:      world.Defaults.Apply(verify.NewRoute(ask.Roles, ask.Namespaces)),
		}, "")
		answer := script.Answer{Class: decision.Result.Class()}
		if decision.Allowed() {
			answer.Identity = decision.Key.Namespace + "/" + decision.Key.Name
			answer.Attributes = maps.Collect(decision.Key.Attributes.All())
		}
		return answer, true
	})
}

func TestZeroValuesRefuse(t *testing.T) {
	var zero verify.Decision
	if zero.Allowed() || zero.Result.Class() == verify.OK {
		t.Error("the zero decision allows the request")
	}
}

func TestEveryResultHasANameAndAClass(t *testing.T) {
	names := map[string]bool{}
	for result := range verify.Result(verify.Results) {
		name := result.String()
		if name == "" || names[name] {
			t.Errorf("result %d has the name %q, which is empty or not unique", result, name)
		}
		names[name] = true
		if (result.Class() == verify.OK) != (result == verify.Allowed) {
			t.Errorf("%s has class %d, but only Allowed may have the class OK", name, result.Class())
		}
	}
}

func TestRouteBounds(t *testing.T) {
	roles := make([]string, verify.MaxRoles, verify.MaxRoles+1)
	for i := range roles {
		roles[i] = fmt.Sprintf("role-%d", i)
	}
	if route := verify.NewRoute(roles, nil); route.Problem != "" {
		t.Errorf("a route with %d roles is invalid: %s", len(roles), route.Problem)
	}
	if route := verify.NewRoute(append(roles, "one-more"), nil); route.Problem == "" {
		t.Errorf("a route with %d roles is valid", len(roles)+1)
	}
	if route := verify.NewRoute(nil, []string{"a", "b"}); route.Problem == "" {
		t.Error("a route with two namespaces is valid")
	}
	if route := verify.NewRoute([]string{strings.Repeat("a", 10_000)}, nil); len(route.Problem) == 0 || len(route.Problem) > 1000 {
		t.Errorf("the problem of a route with a long role has %d bytes, want 1 to 1000", len(route.Problem))
	}
}

func TestDefaultsAddToTheScope(t *testing.T) {
	for _, c := range []struct{ defaults, route, want []string }{
		{nil, nil, nil},
		{nil, []string{"b", "a"}, []string{"b", "a"}},
		{[]string{"b", "a"}, nil, []string{"b", "a"}},
		{[]string{"a"}, []string{"b"}, []string{"b", "a"}},
		{[]string{"a", "b"}, []string{"b", "c"}, []string{"b", "c", "a"}},
		{[]string{"c", "d", "c"}, []string{"a"}, []string{"a", "c", "d"}},
		{[]string{"a", "b"}, []string{"b", "a"}, []string{"b", "a"}},
	} {
		defaults := verify.Defaults{Roles: slices.Clone(c.defaults)}
		room := append(make([]string, 0, 8), c.route...) // has spare capacity that Apply must not write to
		if got := defaults.Apply(verify.NewRoute(room, nil)); !slices.Equal(got.Roles, c.want) || got.Problem != "" {
			t.Errorf("roles %q with the defaults %q: got %q, want %q", c.route, c.defaults, got, c.want)
		}
		if !slices.Equal(defaults.Roles, c.defaults) || len(c.route) > 0 && room[:len(c.route)+1][len(c.route)] != "" {
			t.Errorf("roles %q with the defaults %q: an argument was modified", c.route, c.defaults)
		}
	}
	bad := verify.Bad("unreadable")
	if got := (verify.Defaults{Roles: []string{"a"}, RequireScope: true}).Apply(bad); got.Problem != bad.Problem {
		t.Errorf("an invalid route became %q, want the problem %q", got, bad.Problem)
	}
}

// Apply runs for every request, and most verifiers have no defaults.
func TestDefaultsThatAddNothingDoNotAllocate(t *testing.T) {
	route, nothing := verify.NewRoute([]string{"a", "b"}, nil), verify.NewRoute(nil, nil)
	for name, c := range map[string]struct {
		defaults verify.Defaults
		route    verify.Route
	}{
		"no defaults":           {verify.Defaults{}, route},
		"a route without roles": {verify.Defaults{Roles: []string{"a"}}, nothing},
		"roles that it has":     {verify.Defaults{Roles: []string{"b", "a"}}, route},
	} {
		if allocations := testing.AllocsPerRun(100, func() { c.defaults.Apply(c.route) }); allocations != 0 {
			t.Errorf("%s: %v allocations, want 0", name, allocations)
		}
	}
}

// Headers must not panic, and must not find a credential in a header that is absent, for any input.
func FuzzHeaders(f *testing.F) {
	f.Add("Bearer ak_x", "ak_x", true)
	f.Add("bearer\t", "\xff", false)
	f.Add("Bearer a,Bearer b", "", true)
	f.Fuzz(func(t *testing.T, authorization, apiKey string, both bool) {
		reader := verify.Reader{Prefixes: []string{"ak", "k8"}}
		apiKeys := []string{apiKey}
		if !both {
			apiKeys = nil
		}
		c := reader.Headers([]string{authorization}, apiKeys)
		if !both && c.In(verify.HeaderAPIKey) {
			t.Error("the credential comes from an absent header")
		}
		// Only a header that holds a token can lead to a well-formed credential.
		if c == reader.Token("") || c.In(verify.HeaderAuthorization) || c.In(verify.HeaderAPIKey) {
			return
		}
		if c != (verify.Reader{}).Token("x") {
			t.Error("a well-formed credential comes from none of the headers")
		}
	})
}
