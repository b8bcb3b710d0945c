// Package arrows keeps the rooms of the house apart: which package may know which, and why.
package arrows

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/apikey-operator/apikey-operator/"

// rules say what the packages of a room must not come to depend on, by whatever way.
var rules = []struct {
	room, why string
	forbidden []string
}{
	{
		room: "internal/...", why: "a pure room can be tested, fuzzed and reused without a cluster",
		forbidden: []string{"k8s.io/", "sigs.k8s.io/", "google.golang.org/grpc", module + "api/", module + "controllers/"},
	},
	{
		room: "internal/token", why: "nothing but what mints and hashes can see a token",
		forbidden: []string{module + "internal/expiry", module + "internal/gitops", "net/http"},
	},
	{
		room: "internal/policy", why: "what may be asked for is judged without a token, a clock or a network at hand",
		forbidden: []string{module + "internal/token", module + "internal/gitops", module + "internal/clockskew", "net/http"},
	},
	{
		room: "api/...", why: "whoever uses the types should not get a client or a controller along with them",
		forbidden: []string{"k8s.io/client-go/kubernetes", "sigs.k8s.io/controller-runtime", module + "internal/", module + "controllers/"},
	},
	{
		room: "controllers/issuing", why: "controllers meet in the API, so that each can be read, run and given permissions alone",
		forbidden: []string{module + "controllers/expiring", module + "controllers/counting"},
	},
	{
		room: "controllers/rulebook", why: "what answers for roles and policies belongs to no single controller, and has no business with tokens",
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
		forbidden: []string{module + "hack/", module + "test/", "github.com/onsi/", "sigs.k8s.io/controller-runtime/pkg/envtest", "testing"},
	},
}

func TestArrows(t *testing.T) {
	for _, rule := range rules {
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
			for _, forbidden := range rule.forbidden {
				if dependency == forbidden || strings.HasPrefix(dependency, strings.TrimSuffix(forbidden, "/")+"/") {
					t.Errorf("%s depends on %s, but: %s", rule.room, dependency, rule.why)
				}
			}
		}
	}
}

func list(t *testing.T, args ...string) []string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	names := strings.Fields(string(output))
	if len(names) == 0 {
		t.Fatalf("go list %v names no package: the rule guards nothing", args)
	}
	return names
}
