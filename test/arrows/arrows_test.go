// Package arrows tests which package may depend on which, and says why. It imports none of the packages that it checks.
//
// Every package of the module needs a rule. When you add a package, add it to rules or to pureRooms, and say what it must not depend on.
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

// rule says what the packages of a room must not depend on, directly or indirectly.
type rule struct {
	// room is a package, or a folder and everything below it: internal/serve/...
	room, why string
	// forbidden lists packages. Each entry includes everything below it.
	forbidden []string
	// except lists packages in the folder to which the rule does not apply.
	except []string
}

// rules holds the rules of single rooms.
var rules = []rule{
	{
		room: "api/...", why: "users of the types should not get a client or a controller with them",
		forbidden: []string{"k8s.io/client-go/kubernetes", "sigs.k8s.io/controller-runtime", module + "internal", module + "controllers"},
	},
	{
		room: "internal/token", why: "only the code that mints and hashes tokens may see them",
		forbidden: []string{module + "internal", "net/http"},
	},
	{
		room: "internal/access", why: "what a request may do is decided without tokens, clocks or the rules of issuing",
		forbidden: []string{module + "internal", "net/http"},
	},
	{
		room: "internal/grant", why: "what may be issued is decided without tokens, clocks or requests",
		forbidden: []string{module + "internal/token", module + "internal/index", module + "internal/verify", "net/http"},
	},
	{
		room: "internal/verify", why: "the decision must not depend on the caller or on the protocol",
		forbidden: []string{module + "internal/grant", module + "internal/index", "net/http"},
	},
	{
		room: "internal/index", why: "the index finds keys by digest; it must not see requests or know where keys come from",
		forbidden: []string{module + "internal/gitops", module + "internal/grant", "net/http"},
	},
	{
		room: "internal/clockskew", why: "this package reads a clock over HTTP; what tests run at chosen times must not mix with it",
		forbidden: append([]string{
			module + "internal/access", module + "internal/facts", module + "internal/grant", module + "internal/index",
			module + "internal/lifecycle", module + "internal/token", module + "internal/verify",
		}, impure...),
	},
	{
		room: "internal/serve/...", why: "an adapter translates a protocol to a request and a decision back; it must not know the cluster",
		forbidden: []string{
			module + "api", module + "controllers", module + "internal/callers", module + "internal/grant", "k8s.io", "sigs.k8s.io",
		},
	},
	{
		room: "internal/envoy", why: "this package turns bytes into fields and back, in place of Envoy's own types; it must not use those, or see a key",
		forbidden: append([]string{module + "internal", "github.com/envoyproxy", "context", "log", "net"}, impure...),
	},
	{
		room: "internal/callers", why: "whether a caller may ask does not depend on what it asks",
		forbidden: []string{
			module + "api", module + "controllers", module + "internal/grant", module + "internal/index", module + "internal/serve",
			module + "internal/token", module + "internal/verify", "sigs.k8s.io/controller-runtime",
		},
	},
	{
		room: "internal/lifecycle", why: "what is due for a key follows from plain values, including the time",
		forbidden: []string{"context", "log", "net"},
	},
	{
		room: "internal/rotation", why: "when a rotation is due follows from plain values, including the time",
		forbidden: []string{"context", "log", "net", module + "internal/lifecycle", module + "internal/token"},
	},
	{
		room: "internal/facts", why: "this package reads the life of a key from its object; it calls nothing and decides nothing, so that every room can use it",
		forbidden: []string{
			"k8s.io/client-go", "sigs.k8s.io/controller-runtime", module + "controllers", module + "internal/token", module + "internal/grant",
			module + "internal/index", module + "internal/serve",
		},
	},
	{
		room: "internal/fleet", why: "metrics count keys; they must not change keys or see tokens",
		forbidden: []string{module + "controllers", module + "internal/token", module + "internal/grant", module + "internal/serve"},
	},
	{
		room: "internal/operator", why: "this package assembles the controllers; it must not serve or verify requests",
		forbidden: []string{module + "cmd", module + "internal/feed", module + "internal/index", module + "internal/serve"},
	},
	{
		room: "internal/feed", why: "the feed of the verifier must not issue keys or serve requests",
		forbidden: []string{
			module + "controllers", module + "internal/rulebook", module + "internal/callers", module + "internal/grant", module + "internal/serve",
			"k8s.io/client-go/kubernetes",
		},
	},
	{
		room: "controllers/issuing", why: "controllers communicate only through the API, so that each can be read, run and given permissions separately",
		forbidden: []string{module + "controllers/expiring", module + "controllers/counting", module + "controllers/recording"},
	},
	{
		room: "internal/rulebook", why: "roles and policies belong to no single controller, and must not see tokens",
		forbidden: []string{
			module + "controllers", module + "internal/token",
		},
	},
	{
		room: "internal/usage", why: "what is reported and recorded about use follows from plain values; it must not see tokens, and can't decide",
		forbidden: []string{module + "internal", "context", "log", "net"},
	},
	{
		room: "internal/reporting", why: "the reporter writes ApiKeyUsages and nothing else, and must not see requests",
		forbidden: []string{
			module + "controllers", module + "internal/rulebook", module + "internal/callers", module + "internal/grant", module + "internal/serve",
			module + "internal/feed", "k8s.io/client-go/kubernetes",
		},
	},
	{
		room: "controllers/recording", why: "controllers communicate only through the API, and recording use must not see tokens",
		forbidden: []string{
			module + "controllers/issuing", module + "controllers/expiring", module + "controllers/counting", module + "internal/token",
			module + "internal/index",
		},
	},
	{
		room: "controllers/counting", why: "controllers communicate only through the API, and counting keys must not see tokens",
		forbidden: []string{
			module + "controllers/issuing", module + "controllers/expiring", module + "controllers/recording", module + "internal/token",
		},
	},
	{
		room: "controllers/expiring", why: "controllers communicate only through the API, and deleting ApiKeys must not see tokens",
		forbidden: []string{
			module + "controllers/issuing", module + "controllers/counting", module + "controllers/recording", module + "internal/token",
		},
	},
	{
		room: "guard", why: "a service that uses guard must not get code that issues, expires or counts keys, or that reviews callers",
		forbidden: []string{
			module + "cmd", module + "internal/cli", module + "controllers", module + "internal/rulebook", module + "internal/callers", module + "internal/grant",
		},
	},
	{
		room: "cmd/apikey-verifier", why: "the verifier must not be able to issue, expire or count keys, even by mistake",
		forbidden: []string{
			module + "controllers", module + "internal/rulebook", module + "internal/grant", module + "internal/cli", "k8s.io/cli-runtime",
		},
	},
	{
		room: "cmd/apikey-operator", why: "the operator must not verify requests, or act for a person",
		forbidden: []string{module + "internal/cli", "k8s.io/cli-runtime", module + "internal/feed", module + "internal/index", module + "internal/serve", module + "internal/verify"},
	},
	{
		room: "internal/cli/keys", why: "what people do with keys is the same for every user interface, so it must not know one",
		forbidden: []string{
			module + "controllers", module + "internal/serve", module + "internal/callers", module + "internal/operator",
			"github.com/spf13/cobra", "k8s.io/cli-runtime",
		},
	},
	{
		room: "internal/cli/scan", why: "tokens are found without a cluster, and without a way to send them anywhere",
		forbidden: append([]string{"net/http", module + "internal/index", module + "internal/verify"}, impure...),
	},
	{
		room: "internal/page", why: "the page acts with the rights of a person, as the command does; it must not know the command line, or act for the operator or a verifier",
		forbidden: []string{
			module + "internal/cli/commands", module + "controllers", module + "internal/serve", module + "internal/callers", module + "internal/operator",
			"github.com/spf13/cobra", "k8s.io/cli-runtime",
		},
	},
	{
		room: "internal/page/gate", why: "who may use the page is decided without keys, tokens or the cluster, so that it can be attacked in tests without them",
		forbidden: []string{module + "api", module + "internal/token", module + "internal/cli", "k8s.io", "sigs.k8s.io"},
	},
	{
		room: "internal/cli/backup", why: "a restore writes back digests; it must not be able to mint or read a token",
		forbidden: []string{module + "controllers", module + "internal/token", module + "internal/operator", "github.com/spf13/cobra", "k8s.io/cli-runtime"},
	},
	{
		room: "internal/cli/commands", why: "the command acts with the rights of a person; it must not bring along what acts for the operator or for a verifier",
		forbidden: []string{module + "controllers", module + "internal/serve", module + "internal/callers", module + "internal/operator"},
	},
	{
		room: "cmd/kubectl-apikey", why: "the command must not be able to issue or expire keys, or to answer gateways",
		forbidden: []string{module + "controllers", module + "internal/serve", module + "internal/callers", module + "internal/operator"},
	},
	{
		room: "cmd/internal/process", why: "code that the binaries share must not bring the work of one into the other",
		forbidden: []string{module + "api", module + "controllers", module + "internal/grant", module + "internal/index", module + "internal/serve"},
	},
	{
		room: "examples/...", why: "an example shows what a service that uses the public packages depends on",
		forbidden: tools,
	},
	{room: "internal/verify/script", why: "these test cases may know what they need; products keeps them out of the product"},
	{room: "internal/reference", why: "the generator of docs/reference may know what it needs; products keeps it out of the product"},
	{room: "hack/...", why: "what people and CI run may know every room; products keeps it out of the product"},
	{room: "test/...", why: "tests may know every room; products keeps them out of the product"},
}

// pureRooms lists the packages that are tested, fuzzed and reused without a cluster.
var pureRooms = []string{
	"internal/access", "internal/expiry", "internal/gitops", "internal/grant", "internal/index", "internal/lifecycle", "internal/monitoring",
	"internal/rotation", "internal/token", "internal/usage", "internal/verify", "internal/version", "test/torture/model",
}

// impure lists what no pure room may depend on.
var impure = []string{
	"k8s.io", "sigs.k8s.io", "google.golang.org/grpc", module + "api", module + "controllers", module + "internal/callers",
	module + "internal/clockskew", module + "internal/serve",
}

// products lists everything that is shipped. None of it may depend on tools. Each room in it still needs a rule of its own.
var products = []string{"api/...", "internal/...", "controllers/...", "guard", "cmd/..."}

// tools lists what only people and CI run.
var tools = []string{
	module + "hack", module + "test", module + "internal/verify/script", module + "internal/reference", "github.com/onsi", "sigs.k8s.io/controller-runtime/pkg/envtest", "testing",
	"github.com/prometheus/prometheus", "github.com/yuin",
}

// has reports whether a package, named without the module, is in the room.
func (r rule) has(name string) bool {
	folder, isTree := strings.CutSuffix(r.room, "/...")
	return !slices.Contains(r.except, name) && (name == folder || isTree && strings.HasPrefix(name, folder+"/"))
}

// judge checks packages, given with all their dependencies, against the rules and returns the violations. It also complains about a package
// without a rule, for which common rules don't count, and about a rule without a package.
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
				// Packages of the same room may depend on one another.
				if own, isOurs := strings.CutPrefix(dependency, module); isOurs && rule.has(own) {
					continue
				}
				if slices.ContainsFunc(rule.forbidden, func(forbidden string) bool { return isBelow(dependency, forbidden) }) {
					complaints = append(complaints, fmt.Sprintf("%s depends on %s, but must not: %s", name, dependency, rule.why))
				}
			}
		}
		if empty {
			complaints = append(complaints, "there is no package "+rule.room+": remove its rule")
		}
	}
	for name := range packages {
		if !covered[name] {
			complaints = append(complaints, name+" has no rule: say in this file what it must not depend on, and why")
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
	common := make([]rule, 0, 2*len(products))
	for _, room := range products {
		common = append(common, rule{
			room: room, why: "the product must not depend on what only people and CI run", forbidden: tools,
			except: []string{"internal/verify/script", "internal/reference"},
		}, rule{
			room: room, why: "an API server's libraries add 20 MB to the operator, and internal/callers does without them",
			forbidden: []string{"k8s.io/apiserver", "k8s.io/component-base"},
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
			room: strings.TrimPrefix(protocol, module), why: "protocols must not know one another, so that each can be read, changed and removed separately",
			forbidden: others,
		})
	}
	for _, complaint := range judge(packages, own, common) {
		t.Error(complaint)
	}
}

// modules lists the folders of the modules. test/install is not among them, because it has nothing but tests.
var modules = []string{filepath.Join("..", ".."), filepath.Join("..", "..", "hack", "release"), ".."}

// list returns every package of the modules, named without the module, with the names in a field of go list such as Deps or Imports.
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

// imports lists everything that a room may import besides the standard library and itself.
var imports = []struct {
	room    string
	allowed []string
}{
	{room: "api/...", allowed: []string{"k8s.io/apimachinery"}},
	{room: "internal/lifecycle", allowed: []string{module + "internal/expiry", module + "internal/rotation"}},
	{room: "internal/rotation", allowed: []string{module + "internal/expiry"}},
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
					t.Errorf("%s imports %s, but may import only %v", name, other, c.allowed)
				}
			}
		}
		if checked == 0 {
			t.Errorf("there is no package %s", c.room)
		}
	}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		packages map[string][]string
		rules    []rule
		want     []string // how the complaints begin
	}{
		"nothing": {
			map[string][]string{"a": {"fmt", module + "b"}, "b": {"fmt"}}, []rule{{room: "a", forbidden: []string{"net"}}, {room: "b"}}, nil,
		},
		"a forbidden dependency": {
			map[string][]string{"a": {module + "b/c", "net/http"}, "b/c": nil},
			[]rule{{room: "a", why: "why", forbidden: []string{module + "b", "net"}}, {room: "b/..."}},
			[]string{"a depends on " + module + "b/c, but must not: why", "a depends on net/http, but must not: why"},
		},
		"a name with a common beginning": {map[string][]string{"a": {"network"}}, []rule{{room: "a", forbidden: []string{"net"}}}, nil},
		"a dependency within a room": {
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
	// A common rule doesn't replace a package's own.
	if got := judge(map[string][]string{"a": {"net"}}, nil, []rule{{room: "a", forbidden: []string{"net"}}}); len(got) != 2 {
		t.Errorf("%q, want complaints about the dependency and about the missing rule", got)
	}
}

// clockless lists the rooms that must not read a clock, because their callers pass the time.
var clockless = []string{
	"internal/access", "internal/expiry", "internal/facts", "internal/grant", "internal/index", "internal/lifecycle", "internal/rotation",
	"internal/usage", "internal/verify", "test/torture/model",
}

// clocks lists the functions of package time that read a clock or wait.
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
						t.Errorf("%s uses time.%s, but must get the time from its caller", path, use.Sel.Name)
					}
				}
				return true
			})
		}
	}
}
