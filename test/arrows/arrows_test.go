// Package arrows keeps the rooms of the house apart: which package may know which, and why.
package arrows

import (
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

// A rule says what the packages of a room must not come to depend on.
type rule struct {
	room, why string
	forbidden []string
	// only, if set, are all that the room may come to depend on besides the standard library.
	only []string
}

// rules say what the packages of a room must not come to depend on, by whatever way.
var rules = []rule{
	{
		room: "internal/token", why: "nothing but what mints and hashes can see a token",
		forbidden: []string{module + "internal/expiry", module + "internal/gitops", "net/http"},
	},
	{
		room: "internal/index", why: "what finds keys by their digest must not come to see requests, or to know where keys come from",
		forbidden: []string{module + "internal/serve", module + "internal/gitops", "net/http"},
	},
	{
		room: "internal/verify", why: "who says yes or no must not know who asks, or how",
		forbidden: []string{module + "internal/index", module + "internal/serve", "net/http"},
	},
	{
		room: "internal/serve/...", why: "a protocol is translated to a request and a decision back; objects of the cluster are none of its business",
		forbidden: []string{module + "api/", module + "controllers/", "sigs.k8s.io/controller-runtime"},
	},
	{
		room: "internal/feed", why: "controllers meet in the API, and what feeds the verifier mints nothing and serves nobody",
		forbidden: []string{
			module + "controllers/issuing", module + "controllers/expiring", module + "controllers/counting", module + "internal/rulebook",
			module + "internal/serve", "k8s.io/client-go/kubernetes",
		},
	},
	{
		room: "cmd/apikey-verifier", why: "the verifier can't issue, expire or count keys, not even by mistake",
		forbidden: []string{module + "controllers/issuing", module + "controllers/expiring", module + "controllers/counting"},
	},
	{
		room: "internal/access", why: "what a request may do is said without a token, a clock or what may be issued at hand",
		forbidden: []string{module + "internal/token", module + "internal/grant", "net/http"},
	},
	{
		room: "internal/grant", why: "what may be issued is judged without a token, a clock or a request at hand",
		forbidden: []string{module + "internal/token", module + "internal/verify", "net/http"},
	},
	{
		room: "api/...", why: "whoever uses the types should not get a client or a controller along with them",
		forbidden: []string{"k8s.io/client-go/kubernetes", "sigs.k8s.io/controller-runtime", module + "internal/", module + "controllers/"},
	},
	{
		room: "internal/facts", why: "what tells the life of a key from its object asks nobody and decides nothing, so that all can use it",
		forbidden: []string{
			"k8s.io/client-go", "sigs.k8s.io/controller-runtime", module + "controllers/", module + "internal/token", module + "internal/policy",
			module + "internal/index", module + "internal/serve",
		},
	},
	{
		room: "internal/lifecycle", why: "what is to be done about a key follows from plain values, of which moments are one",
		forbidden: []string{"net", "log", "context"},
		only:      []string{module + "internal/expiry"},
	},
	{
		room: "controllers/issuing", why: "controllers meet in the API, so that each can be read, run and given permissions alone",
		forbidden: []string{module + "controllers/expiring", module + "controllers/counting"},
	},
	{
		room: "internal/rulebook", why: "what answers for roles and policies belongs to no single controller, and has no business with tokens",
		forbidden: []string{
			module + "controllers/issuing", module + "controllers/expiring", module + "controllers/counting", module + "internal/token",
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
		room: "cmd/...", why: "the product must not contain what only people and CI run",
		forbidden: []string{
			module + "hack/", module + "test/", "github.com/onsi/", "sigs.k8s.io/controller-runtime/pkg/envtest", "testing",
			"github.com/prometheus/prometheus", "github.com/yuin/",
		},
	},
}

// pureRooms are tested, fuzzed and reused without a cluster.
var pureRooms = []string{
	"internal/access", "internal/expiry", "internal/gitops", "internal/grant", "internal/index", "internal/lifecycle", "internal/token", "internal/verify", "internal/version",
}

// impure are what no pure room may come to depend on.
var impure = []string{"k8s.io/", "sigs.k8s.io/", "google.golang.org/grpc", module + "api/", module + "controllers/", module + "internal/serve"}

// protocols don't know one another, so that one can be read, changed and removed alone.
var protocols = []string{
	"internal/serve/extauthz", "internal/serve/forwardauth", "internal/serve/introspection", "internal/serve/tokenreview",
}

func TestArrows(t *testing.T) {
	all := slices.Clone(rules)
	for _, room := range pureRooms {
		all = append(all, rule{room: room, why: "a pure room can be tested, fuzzed and reused without a cluster", forbidden: impure})
	}
	for _, room := range protocols {
		var others []string
		for _, other := range protocols {
			if other != room {
				others = append(others, module+other)
			}
		}
		all = append(all, rule{room: room, why: "protocols don't know one another", forbidden: others})
	}
	for _, rule := range all {
		// The room's own packages among themselves are no business of the rule.
		own := list(t, "-f={{.ImportPath}}", module+rule.room)
		isOwn := map[string]bool{}
		for _, name := range own {
			isOwn[name] = true
		}
		for _, dependency := range list(t, "-deps", "-f={{.ImportPath}}", module+rule.room) {
			if isOwn[dependency] {
				continue
			}
			if host, _, _ := strings.Cut(dependency, "/"); rule.only != nil && strings.Contains(host, ".") && !slices.Contains(rule.only, dependency) {
				t.Errorf("%s depends on %s, but: %s", rule.room, dependency, rule.why)
			}
			for _, forbidden := range rule.forbidden {
				if dependency == forbidden || strings.HasPrefix(dependency, strings.TrimSuffix(forbidden, "/")+"/") {
					t.Errorf("%s depends on %s, but: %s", rule.room, dependency, rule.why)
				}
			}
		}
	}
}

// clockless are the rooms that are told what time it is.
var clockless = []string{"internal/expiry", "internal/facts", "internal/lifecycle"}

// clocks are what of package time reads a clock, or waits by one.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

func TestNoClockIsRead(t *testing.T) {
	for _, room := range clockless {
		paths, err := filepath.Glob(filepath.Join("..", "..", room, "*.go"))
		if err != nil || len(paths) < 2 {
			t.Fatalf("files of %s: %v, %v", room, paths, err)
		}
		for _, path := range paths {
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

func list(t *testing.T, args ...string) []string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	command.Dir = filepath.Join("..", "..") // the product's module
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	names := strings.Fields(string(output))
	if len(names) == 0 {
		t.Fatalf("go list %v names no package: the rule guards nothing", args)
	}
	return names
}
