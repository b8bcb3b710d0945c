package release

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// checkout is a repository whose only commit contains the sources of this one.
type checkout struct {
	path, revision, zone string
	// settings is the file of settings that a user has made with `go env -w`.
	settings string
}

// commit copies the sources, including new files, to a folder with that name and commits them with a fixed author and date.
func commit(t *testing.T, folder, zone string) checkout {
	t.Helper()
	c := checkout{path: filepath.Join(t.TempDir(), folder), zone: zone, settings: filepath.Join(t.TempDir(), "go.env")}
	if err := os.WriteFile(c.settings, []byte("GOFLAGS=-tags="+strings.ToLower(zone[:2])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.path, 0o755); err != nil {
		t.Fatal(err)
	}
	listed := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	listed.Dir = root(t)
	out, err := listed.Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		from := filepath.Join(root(t), path)
		info, err := os.Stat(from)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(c.path, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	if !full {
		standIn(t, c.path)
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message=sources"}} {
		if out, err := c.run(t.Context(), append([]string{"git"}, args...)...); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	revision, err := c.run(t.Context(), "git", "rev-parse", "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	c.revision = strings.TrimSpace(revision)
	if out, err := c.run(t.Context(), "go", "build", "-C", "hack/release", "-o", "../../.git/release", "."); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return c
}

// standIn replaces the plugin for Windows by a program that prints its version, which compiles in seconds.
func standIn(t *testing.T, folder string) {
	t.Helper()
	main := filepath.Join(folder, "cmd", plugin, "main.go")
	source, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	const program = `package main

import "github.com/apikey-operator/apikey-operator/internal/version"

func main() { println(version.String()) }
`
	for path, text := range map[string]string{main: "//go:build !windows\n\n" + string(source), strings.Replace(main, "main.go", "main_windows.go", 1): program} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// release runs hack/release in a checkout and returns its output.
func release(t *testing.T, c checkout, args ...string) string {
	t.Helper()
	out, err := c.run(t.Context(), append([]string{".git/release", "-version=" + version}, args...)...)
	if err != nil {
		t.Fatalf("release %v: %v\n%s", args, err, out)
	}
	return out
}

func (c checkout) run(ctx context.Context, command ...string) (string, error) {
	// A fixed author and date give the commit the same hash everywhere.
	const who = "test"
	run := exec.CommandContext(ctx, command[0], command[1:]...)
	run.Dir = c.path
	run.Env = append(os.Environ(), "TZ="+c.zone, "GOENV="+c.settings, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME="+who, "GIT_AUTHOR_EMAIL="+who, "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z",
		"GIT_COMMITTER_NAME="+who, "GIT_COMMITTER_EMAIL="+who, "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
	out, err := run.CombinedOutput()
	return string(out), err
}

func root(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
