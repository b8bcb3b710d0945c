package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hello is a program with a module of its own, which needs nothing but the standard library.
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

func TestMakeBuildsWhatIsMissingOrOfAnotherPin(t *testing.T) {
	m := newBuilder(t)
	wanted := []binary{hello}
	if err := m.make(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if got := says(t, m); got != "good morning" {
		t.Errorf("it says %q", got)
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
		t.Error("it is to be made again at once")
	}
	write(t, filepath.Join(m.source, "hello", "main.go"), program("good evening"))
	if missing() != 1 {
		t.Error("it is not made anew when its code changes")
	}
	if err := m.make(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if got := says(t, m); got != "good evening" {
		t.Errorf("made anew, it says %q", got)
	}
	write(t, filepath.Join(m.source, "hello", "go.sum"), "\n")
	if missing() != 1 {
		t.Error("it is not made anew when its module changes")
	}
	if err := m.make(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.path(hello)); err != nil {
		t.Fatal(err)
	}
	if missing() != 1 {
		t.Error("it is not made anew when it is gone")
	}
}

func TestMakeTellsWhatTheCompilerSaid(t *testing.T) {
	m := newBuilder(t)
	write(t, filepath.Join(m.source, "hello", "main.go"), "package main\n\nfunc main() { nonsense() }\n")
	err := m.make(t.Context(), []binary{hello})
	if err == nil || !strings.Contains(err.Error(), "undefined: nonsense") {
		t.Errorf("make: %v", err)
	}
	log, err := os.ReadFile(filepath.Join(m.out, logName))
	if err != nil || !strings.Contains(string(log), "undefined: nonsense") {
		t.Errorf("the log has %q, %v", log, err)
	}
	if found := files(t, m.out); len(found) != 1 {
		t.Errorf("left in the folder: %v, want the log alone", found)
	}
}

// Each module of the table is there with its sums, and each set has a name of its own for each binary.
func TestBinariesHaveModules(t *testing.T) {
	m, _ := newMaker(t, "", "")
	for name, set := range sets {
		seen := map[string]bool{}
		for _, b := range set {
			if _, err := m.pin(b); err != nil {
				t.Errorf("%s of %s: %v", b.name, name, err)
			}
			if seen[m.path(b)] {
				t.Errorf("%s: two binaries are %s", name, m.path(b))
			}
			seen[m.path(b)] = true
		}
	}
}

// What the product and the control plane both have compiles once only where it is of the same version.
func TestModulesShareVersions(t *testing.T) {
	product, controlplane := versions(t, filepath.Join("..", "..", "go.mod")), versions(t, filepath.Join("controlplane", "go.mod"))
	shared := 0
	for module, version := range product {
		if other, ok := controlplane[module]; ok {
			shared++
			if other != version {
				t.Errorf("%s is %s in go.mod and %s in hack/kube/controlplane/go.mod: raise the older (go get %[1]s@...)", module, version, other)
			}
		}
	}
	if shared < 50 {
		t.Errorf("only %d modules are shared", shared)
	}
}

// versions are those that a module file requires, or replaces them by.
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
				t.Errorf("hasKubectl: %t", got)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if m.hasKubectl(t.Context()) {
			t.Error("there is none")
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
			t.Errorf("near(%q, %q) = %t", test.a, test.b, got)
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
