package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hello is a program in its own module that needs only the standard library.
var hello = binary{"hello", module{folder: "hello", file: "go.mod"}, "."}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func program(says string) string { return "package main\n\nfunc main() { print(`" + says + "`) }\n" }

func newBuilder(t *testing.T) *maker {
	t.Helper()
	m, _ := newMaker(t, "", "")
	m.source = t.TempDir()
	write(t, filepath.Join(m.source, "hello", "go.mod"), "module example.com/hello\n\ngo 1.26.0\n")
	write(t, filepath.Join(m.source, "hello", "go.sum"), "")
	write(t, filepath.Join(m.source, "hello", "main.go"), program("good morning"))
	return m
}

func says(t *testing.T, m *maker) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), m.path(hello)).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestMakeBuildsMissingAndOutdatedBinaries(t *testing.T) {
	m := newBuilder(t)
	wanted := []binary{hello}
	if err := m.make(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if got := says(t, m); got != "good morning" {
		t.Errorf("the binary prints %q, want %q", got, "good morning")
	}
	missing := func() int {
		t.Helper()
		found, err := m.missing(wanted)
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if missing() != 0 {
		t.Error("the binary is missing right after it was built")
	}
	write(t, filepath.Join(m.source, "hello", "main.go"), program("good evening"))
	if missing() != 1 {
		t.Error("the binary is not missing after its code changed")
	}
	if err := m.make(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if got := says(t, m); got != "good evening" {
		t.Errorf("the binary prints %q, want %q", got, "good evening")
	}
	write(t, filepath.Join(m.source, "hello", "go.sum"), "\n")
	if missing() != 1 {
		t.Error("the binary is not missing after its module changed")
	}
	if err := m.make(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.path(hello)); err != nil {
		t.Fatal(err)
	}
	if missing() != 1 {
		t.Error("the binary is not missing after it was deleted")
	}
}

func TestBuildErrorHasTheOutputOfTheCompiler(t *testing.T) {
	m := newBuilder(t)
	write(t, filepath.Join(m.source, "hello", "main.go"), "package main\n\nfunc main() { nonsense() }\n")
	err := m.make(t.Context(), []binary{hello})
	if err == nil || !strings.Contains(err.Error(), "undefined: nonsense") {
		t.Errorf("error %v, want one with the output of the compiler", err)
	}
	log, err := os.ReadFile(filepath.Join(m.out, logName))
	if err != nil || !strings.Contains(string(log), "undefined: nonsense") {
		t.Errorf("the log is %q, error %v; want the output of the compiler", log, err)
	}
	if found := files(t, m.out); len(found) != 1 {
		t.Errorf("the folder has %v, want the log alone", found)
	}
}

// Each binary must have a module with a sum file, and a path of its own within its set.
func TestBinariesHaveModules(t *testing.T) {
	m, _ := newMaker(t, "", "")
	for name, set := range sets {
		seen := map[string]bool{}
		for _, b := range set {
			if _, err := m.pin(b); err != nil {
				t.Errorf("pin of %s in the set %s: %v", b.name, name, err)
			}
			if seen[m.path(b)] {
				t.Errorf("set %s: two binaries have the path %s", name, m.path(b))
			}
			seen[m.path(b)] = true
		}
	}
}

// The product and the control plane share compiled packages only if their modules have the same versions.
func TestModulesShareVersions(t *testing.T) {
	product, controlplane := versions(t, filepath.Join("..", "..", "go.mod")), versions(t, filepath.Join("controlplane", "go.mod"))
	shared := 0
	for module, version := range product {
		if other, ok := controlplane[module]; ok {
			shared++
			if other != version {
				t.Errorf("%s is %s in go.mod and %s in hack/kube/controlplane/go.mod: update the older one (go get %[1]s@...)", module, version, other)
			}
		}
	}
	if shared < 50 {
		t.Errorf("the modules share %d dependencies, want at least 50", shared)
	}
}

// versions returns the versions that a module file requires, after replacements.
func versions(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case len(words) >= 2 && strings.HasPrefix(words[1], "v"):
			if _, ok := found[words[0]]; !ok {
				found[words[0]] = words[1]
			}
		case len(words) == 4 && words[1] == "=>":
			found[words[0]] = words[3]
		}
	}
	return found
}

func TestKubectlOfPath(t *testing.T) {
	m, _ := newMaker(t, "", "")
	for _, test := range []struct {
		name, says string
		want       bool
	}{
		{"the same minor version", `{"clientVersion": {"gitVersion": "v1.37.0"}}`, true},
		{"a minor version older", `{"clientVersion": {"gitVersion": "v1.36.9"}}`, true},
		{"two minor versions older", `{"clientVersion": {"gitVersion": "v1.35.4"}}`, false},
		{"of a vendor", `{"clientVersion": {"gitVersion": "v1.38.1-eks-1234"}}`, true},
		{"something else", `kubectl: what?`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder := t.TempDir()
			write(t, filepath.Join(folder, "kubectl"), "#!/bin/sh\necho '"+test.says+"'\n")
			if err := os.Chmod(filepath.Join(folder, "kubectl"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", folder)
			if got := m.hasKubectl(t.Context()); got != test.want {
				t.Errorf("hasKubectl = %t, want %t", got, test.want)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if m.hasKubectl(t.Context()) {
			t.Error("hasKubectl is true without kubectl in PATH")
		}
	})
}

func TestNear(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"v1.37.2", "v1.37.0", true}, {"v1.36.3", "v1.37.2", true}, {"v1.38.0-alpha.1", "v1.37.2", true},
		{"v1.35.4", "v1.37.2", false}, {"v2.37.2", "v1.37.2", false}, {"", "v1.37.2", false}, {"v1.x.2", "v1.37.2", false},
	} {
		if got := near(test.a, test.b); got != test.want {
			t.Errorf("near(%q, %q) = %t, want %t", test.a, test.b, got, test.want)
		}
	}
}

func TestMinutes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 59_400 * time.Millisecond: "59 s", 59_500 * time.Millisecond: "1 min 0 s", 725 * time.Second: "12 min 5 s",
	} {
		if got := minutes(d); got != want {
			t.Errorf("minutes(%s) = %q, want %q", d, got, want)
		}
	}
}
