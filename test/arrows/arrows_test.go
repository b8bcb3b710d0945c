// Package arrows keeps the rooms of the house apart: which package may know which, and why. It imports none of them, so that it can judge
// them all.
//
// Every package of the module has a rule. Whoever adds a package adds a line to rules, or to pureRooms, and says there what it must not come
// to depend on.
package arrows

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/apikey-operator/apikey-operator/"

// A rule says what the packages of a room must not come to depend on, by whatever way.
type rule struct {
	// room is a package, or a folder with all that is below it: internal/serve/...
	room, why string
	// forbidden are packages, each with all that is below it.
	forbidden []string
	// except is a package of the folder that the rule is not about.
	except string
}

// rules give each room its own.
var rules = []rule{
	{
		room: "api/...", why: "whoever uses the types should not get a client or a controller along with them",
		forbidden: []string{"k8s.io/client-go/kubernetes", "sigs.k8s.io/controller-runtime", module + "internal", module + "controllers"},
	},
	{
		room: "internal/token", why: "nothing but what mints and hashes can see a token",
		forbidden: []string{module + "internal", "net/http"},
	},
	{
		room: "internal/access", why: "what a request may do is said without a token, a clock or what may be issued at hand",
		forbidden: []string{module + "internal", "net/http"},
	},
	{
		room: "internal/grant", why: "what may be issued is judged without a token, a clock or a request at hand",
		forbidden: []string{module + "internal/token", module + "internal/index", module + "internal/verify", "net/http"},
	},
	{
		room: "internal/verify", why: "who says yes or no must not know who asks, or how",
		forbidden: []string{module + "internal/grant", module + "internal/index", "net/http"},
	},
	{
		room: "internal/index", why: "what finds keys by their digest must not come to see requests, or to know where keys come from",
		forbidden: []string{module + "internal/gitops", module + "internal/grant", "net/http"},
	},
	{
		room: "internal/clockskew", why: "who reads clocks, over HTTP, knows nothing that a test must be able to put at any moment",
		forbidden: append([]string{
			module + "internal/access", module + "internal/facts", module + "internal/grant", module + "internal/index",
			module + "internal/lifecycle", module + "internal/token", module + "internal/verify",
		}, impure...),
	},
	{
		room: "internal/serve/...", why: "a protocol is translated to a request and a decision back; the cluster is none of its business",
		forbidden: []string{
			module + "api", module + "controllers", module + "internal/callers", module + "internal/grant", "k8s.io", "sigs.k8s.io",
		},
	},
	{
		room: "internal/callers", why: "who may ask is said without a look at what is asked",
		forbidden: []string{
			module + "api", module + "controllers", module + "internal/grant", module + "internal/index", module + "internal/serve",
			module + "internal/token", module + "internal/verify", "sigs.k8s.io/controller-runtime",
		},
	},
	{
		room: "internal/lifecycle", why: "what is to be done about a key follows from plain values, of which moments are one",
		forbidden: []string{"context", "log", "net"},
	},
	{
		room: "internal/facts", why: "what tells the life of a key from its object asks nobody and decides nothing, so that all can use it",
		forbidden: []string{
			"k8s.io/client-go", "sigs.k8s.io/controller-runtime", module + "controllers", module + "internal/token", module + "internal/grant",
			module + "internal/index", module + "internal/serve",
		},
	},
	{
		room: "internal/fleet", why: "what counts keys for metrics changes none, and has no business with tokens",
		forbidden: []string{module + "controllers", module + "internal/token", module + "internal/grant", module + "internal/serve"},
	},
	{
		room: "internal/operator", why: "what puts the controllers together serves nobody and lets nobody in",
		forbidden: []string{module + "cmd", module + "internal/feed", module + "internal/index", module + "internal/serve"},
	},
	{
		room: "internal/feed", why: "what feeds the verifier mints nothing and serves nobody",
		forbidden: []string{
			module + "controllers", module + "internal/rulebook", module + "internal/callers", module + "internal/grant", module + "internal/serve",
			"k8s.io/client-go/kubernetes",
		},
	},
	{
		room: "controllers/issuing", why: "controllers meet in the API, so that each can be read, run and given permissions alone",
		forbidden: []string{module + "controllers/expiring", module + "controllers/counting"},
	},
	{
		room: "internal/rulebook", why: "what answers for roles and policies belongs to no single controller, and has no business with tokens",
		forbidden: []string{
			module + "controllers", module + "internal/token",
		},
	},
	{
		room: "controllers/counting", why: "controllers meet in the API, and what counts keys has no business with tokens",
		forbidden: []string{module + "controllers/issuing", module + "controllers/expiring", module + "internal/token"},
	},
	{
		room: "controllers/expiring", why: "controllers meet in the API, and what deletes ApiKeys has no business with tokens",
		forbidden: []string{module + "controllers/issuing", module + "controllers/counting", module + "internal/token"},
	},
	{
		room: "guard", why: "the check inside a service brings nothing along that issues, expires or counts keys, or that reviews callers",
		forbidden: []string{
			module + "cmd", module + "controllers", module + "internal/rulebook", module + "internal/callers", module + "internal/grant",
		},
	},
	{
		room: "cmd/apikey-verifier", why: "the verifier can't issue, expire or count keys, not even by mistake",
		forbidden: []string{
			module + "controllers", module + "internal/rulebook", module + "internal/grant",
		},
	},
	{
		room: "cmd/apikey-operator", why: "the operator lets nobody in",
		forbidden: []string{module + "internal/feed", module + "internal/index", module + "internal/serve", module + "internal/verify"},
	},
	{
		room: "cmd/internal/process", why: "what the binaries have in common must not make one of them know what the other does",
		forbidden: []string{module + "api", module + "controllers", module + "internal/grant", module + "internal/index", module + "internal/serve"},
	},
	{
		room: "examples/...", why: "an example shows what a service gets that uses the public packages",
		forbidden: tools,
	},
	{room: "internal/verify/script", why: "cases that all protocols are held to are for tests; that no product knows them is said below"},
	{room: "hack/...", why: "what people and CI run may know every room; that no room knows it is said below"},
	{room: "test/...", why: "tests may know every room; that no room knows them is said below"},
}

// pureRooms are tested, fuzzed and reused without a cluster.
var pureRooms = []string{
	"internal/access", "internal/expiry", "internal/gitops", "internal/grant", "internal/index", "internal/lifecycle", "internal/monitoring",
	"internal/token", "internal/verify", "internal/version",
}

// impure are what no pure room may come to depend on.
var impure = []string{
	"k8s.io", "sigs.k8s.io", "google.golang.org/grpc", module + "api", module + "controllers", module + "internal/callers",
	module + "internal/clockskew", module + "internal/serve",
}

// products are all that is shipped. A room needs a rule of its own beside this one.
var products = []string{"api/...", "internal/...", "controllers/...", "guard", "cmd/..."}

// tools are what only people and CI run.
var tools = []string{
	module + "hack", module + "test", module + "internal/verify/script", "github.com/onsi", "sigs.k8s.io/controller-runtime/pkg/envtest", "testing",
	"github.com/prometheus/prometheus", "github.com/yuin",
}

// has tells whether a package, without the module's name, is in the room.
func (r rule) has(name string) bool {
	folder, isTree := strings.CutSuffix(r.room, "/...")
	return name != r.except && (name == folder || isTree && strings.HasPrefix(name, folder+"/"))
}

// judge holds packages, each with all that it depends on, against rules. Each package needs one, each of the rules a package; common rules
// hold beside them.
func judge(packages map[string][]string, rules, common []rule) (complaints []string) {
	covered := map[string]bool{}
	for i, rule := range append(slices.Clone(rules), common...) {
		empty := true
		for name, dependencies := range packages {
			if !rule.has(name) {
				continue
			}
			empty = false
			covered[name] = covered[name] || i < len(rules)
			for _, dependency := range dependencies {
				// The room's own packages among themselves are no business of the rule.
				if own, isOurs := strings.CutPrefix(dependency, module); isOurs && rule.has(own) {
					continue
				}
				if slices.ContainsFunc(rule.forbidden, func(forbidden string) bool { return isBelow(dependency, forbidden) }) {
					complaints = append(complaints, fmt.Sprintf("%s depends on %s, but: %s", name, dependency, rule.why))
				}
			}
		}
		if empty {
			complaints = append(complaints, "there is no package "+rule.room+": its rule guards nothing")
		}
	}
	for name := range packages {
		if !covered[name] {
			complaints = append(complaints, name+" has no rule: say in this file what it must not come to depend on, and why")
		}
	}
	slices.Sort(complaints)
	return complaints
}

func isBelow(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }

func TestArrows(t *testing.T) {
	packages := list(t, "Deps")
	own := slices.Clone(rules)
	for _, room := range pureRooms {
		own = append(own, rule{room: room, why: "a pure room can be tested, fuzzed and reused without a cluster", forbidden: impure})
	}
	common := make([]rule, 0, len(products))
	for _, room := range products {
		common = append(common, rule{
			room: room, why: "the product must not contain what only people and CI run", forbidden: tools, except: "internal/verify/script",
		})
	}
	var protocols []string
	for name := range packages {
		if isBelow(name, "internal/serve") && name != "internal/serve" && name != "internal/serve/intake" {
			protocols = append(protocols, module+name)
		}
	}
	for _, protocol := range protocols {
		others := slices.DeleteFunc(slices.Clone(protocols), func(name string) bool { return name == protocol })
		common = append(common, rule{
			room: strings.TrimPrefix(protocol, module), why: "protocols don't know one another, so that one can be read, changed and removed alone",
			forbidden: others,
		})
	}
	for _, complaint := range judge(packages, own, common) {
		t.Error(complaint)
	}
}

// modules are the product's and those of what only people and CI run, from here. test/install has no package but its tests.
var modules = []string{filepath.Join("..", ".."), filepath.Join("..", "..", "hack", "release"), ".."}

// list is every package of the modules, without the product's name, with all that it depends on, or with what it imports.
func list(t *testing.T, what string) map[string][]string {
	t.Helper()
	packages := map[string][]string{}
	for _, folder := range modules {
		command := exec.CommandContext(t.Context(), "go", "list", "-tags=e2e", `-f={{.ImportPath}} {{join .`+what+` " "}}`, "./...")
		command.Dir = folder
		output, err := command.Output()
		if err != nil {
			t.Fatalf("go list in %s: %v", folder, err)
		}
		for line := range strings.Lines(string(output)) {
			names := strings.Fields(line)
			packages[strings.TrimPrefix(names[0], module)] = names[1:]
		}
	}
	return packages
}

// imports are all that a room may import besides the standard library and itself.
var imports = []struct {
	room    string
	allowed []string
}{
	{room: "api/...", allowed: []string{"k8s.io/apimachinery"}},
	{room: "internal/lifecycle", allowed: []string{module + "internal/expiry"}},
}

func TestImports(t *testing.T) {
	packages := list(t, "Imports")
	for _, c := range imports {
		checked := 0
		for name, imported := range packages {
			if !(rule{room: c.room}).has(name) {
				continue
			}
			checked++
			for _, other := range imported {
				host, _, _ := strings.Cut(other, "/")
				own, isOurs := strings.CutPrefix(other, module)
				if !strings.Contains(host, ".") || isOurs && (rule{room: c.room}).has(own) {
					continue
				}
				if !slices.ContainsFunc(c.allowed, func(allowed string) bool { return isBelow(other, allowed) }) {
					t.Errorf("%s imports %s, and may import only %v", name, other, c.allowed)
				}
			}
		}
		if checked == 0 {
			t.Errorf("there is no package %s", c.room)
		}
	}
}

func TestWhatIsComplainedOf(t *testing.T) {
	for name, c := range map[string]struct {
		packages map[string][]string
		rules    []rule
		want     []string // parts of complaints
	}{
		"nothing": {
			map[string][]string{"a": {"fmt", module + "b"}, "b": {"fmt"}}, []rule{{room: "a", forbidden: []string{"net"}}, {room: "b"}}, nil,
		},
		"an arrow": {
			map[string][]string{"a": {module + "b/c", "net/http"}, "b/c": nil},
			[]rule{{room: "a", why: "why", forbidden: []string{module + "b", "net"}}, {room: "b/..."}},
			[]string{"a depends on " + module + "b/c, but: why", "a depends on net/http, but: why"},
		},
		"a name that begins alike": {map[string][]string{"a": {"network"}}, []rule{{room: "a", forbidden: []string{"net"}}}, nil},
		"an arrow within a room": {
			map[string][]string{"a/b": {module + "a/c"}, "a/c": nil}, []rule{{room: "a/...", forbidden: []string{module + "a"}}}, nil,
		},
		"a package without a rule": {
			map[string][]string{"a": nil, "a/b": nil, "ab": nil}, []rule{{room: "a"}}, []string{"a/b has no rule", "ab has no rule"},
		},
		"a rule without a package": {
			map[string][]string{"a": nil, "cd": nil}, []rule{{room: "a"}, {room: "cd"}, {room: "b"}, {room: "c/..."}},
			[]string{"there is no package b", "there is no package c/..."},
		},
	} {
		got := judge(c.packages, c.rules, nil)
		matches := slices.EqualFunc(got, c.want, strings.HasPrefix)
		if !matches {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	// What holds for all gives none its own.
	if got := judge(map[string][]string{"a": {"net"}}, nil, []rule{{room: "a", forbidden: []string{"net"}}}); len(got) != 2 {
		t.Errorf("%q, want a complaint of the arrow, and one that there is no rule", got)
	}
}

// clockless are the rooms that are told what time it is.
var clockless = []string{
	"internal/access", "internal/expiry", "internal/facts", "internal/grant", "internal/index", "internal/lifecycle", "internal/verify",
}

// clocks are what of package time reads a clock, or waits by one.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

func TestNoClockIsRead(t *testing.T) {
	for _, room := range clockless {
		paths, err := filepath.Glob(filepath.Join("..", "..", room, "*.go"))
		if err != nil || len(paths) < 2 {
			t.Fatalf("files of %s: %v, %v", room, paths, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(node ast.Node) bool {
				if use, ok := node.(*ast.SelectorExpr); ok {
					if from, ok := use.X.(*ast.Ident); ok && from.Name == "time" && slices.Contains(clocks, use.Sel.Name) {
						t.Errorf("%s uses time.%s, but is told what time it is", path, use.Sel.Name)
					}
				}
				return true
			})
		}
	}
}
