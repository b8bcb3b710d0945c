// Package image builds the images of hack/release twice and inspects them as a container runtime would. The second time, the compiled code
// comes from Go's cache: Go promises that its compiler is deterministic (https://go.dev/blog/rebuild), and the tests don't check that.
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const version = "v9.8.7"

// TestImages builds the same commit in two folders, with different time zones and Go settings.
func TestImages(t *testing.T) {
	one := commit(t, "here", "UTC")
	other := commit(t, filepath.Join("a", "folder", "elsewhere"), "Asia/Tokyo")
	first, second := release(t, one, "image"), release(t, other, "image")
	if first != second {
		t.Errorf("two builds of one commit differ:\n%s\n%s", first, second)
	}
	if names := regexp.MustCompile(`(?m)^docker\.io/library/apikey-(operator|verifier):`+version+`@sha256:[0-9a-f]{64}\s`).FindAllString(first, -1); len(names) != 2 {
		t.Errorf("want the names of two images by digest, got:\n%s", first)
	}
	for _, product := range []string{"apikey-operator", "apikey-verifier"} {
		t.Run(product, func(t *testing.T) {
			index := open(t, filepath.Join(one.path, "dist", product+".tar"))
			inspect(t, index, product, one.revision)
		})
	}

	t.Run("push puts into the registry what it prints", func(t *testing.T) { pushPutsIntoTheRegistryWhatItPrints(t, one) })
	t.Run("invalid settings are named", func(t *testing.T) { invalidSettingsAreNamed(t, one) })

	if err := os.WriteFile(filepath.Join(other.path, "cmd", "apikey-operator", "more.go"), []byte("package main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := release(t, other, "-platforms=linux/"+runtime.GOARCH, "image")
	index := open(t, filepath.Join(other.path, "dist", "apikey-operator.tar"))
	if annotations := manifest(t, index).Annotations; annotations["org.opencontainers.image.revision"] != other.revision+"-modified" {
		t.Errorf("changed sources are labelled with the commit's revision alone: %v\n%s", annotations, changed)
	}
}

func pushPutsIntoTheRegistryWhatItPrints(t *testing.T, checkout checkout) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	printed := strings.Fields(release(t, checkout, "-platforms=linux/"+runtime.GOARCH, "-registry="+host+"/team", "push"))
	if len(printed) != 2 {
		t.Fatalf("want two images, got %v", printed)
	}
	for _, pushed := range printed {
		tagged, digest, _ := strings.Cut(pushed, "@")
		reference, err := name.ParseReference(tagged)
		if err != nil {
			t.Fatal(err)
		}
		index, err := remote.Index(reference, remote.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := index.Digest(); err != nil || got.String() != digest {
			t.Errorf("the registry has %s as %s: %v", tagged, got, err)
		}
	}
}

func invalidSettingsAreNamed(t *testing.T, checkout checkout) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"push"}, "-registry is required"},
		{[]string{"-version=1.0+build", "image"}, `-version="1.0+build"`},
		{[]string{"-platforms=windows/amd64", "image"}, `"windows/amd64"`},
		{[]string{"-registry=https://registry.example", "push"}, "-registry=https://registry.example"},
		{[]string{"fly"}, `command "fly"`},
	} {
		out, err := checkout.run(t.Context(), append([]string{".git/release"}, c.args...)...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("release %v: want a failure that contains %q, got %v\n%s", c.args, c.want, err, out)
		}
	}
}

// TestDockerfile compares what the Dockerfile repeats with its sources.
func TestDockerfile(t *testing.T) {
	dockerfile := read(t, filepath.Join(root(t), "Dockerfile"))
	toolchain := regexp.MustCompile(`(?m)^toolchain go(.+)$`).FindStringSubmatch(read(t, filepath.Join(root(t), "go.mod")))
	if toolchain == nil {
		t.Fatal("go.mod names no toolchain")
	}
	for _, want := range []string{
		"ARG GO_VERSION=" + toolchain[1] + "\n", "USER 65532:65532\n", "-trimpath -buildvcs=false", "FROM scratch\n",
		"internal/version.version=$VERSION", "internal/version.revision=$REVISION",
		`RUN [ "$(go env GOVERSION)" = "go$GO_VERSION" ]` + "\n",
	} {
		if !strings.Contains(dockerfile, want) {
			t.Errorf("Dockerfile lacks %q", want)
		}
	}
}

// TestDockerfilePinsItsBasesByDigest makes sure that nobody can change the build by moving a tag: every image from elsewhere is named by
// digest.
func TestDockerfilePinsItsBasesByDigest(t *testing.T) {
	dockerfile := read(t, filepath.Join(root(t), "Dockerfile"))
	images := regexp.MustCompile(`(?m)^(?:FROM(?:\s+--platform=\S+)?|COPY\s+--from=)\s*(\S+)(?:\s+AS\s+(\S+))?`).FindAllStringSubmatch(dockerfile, -1)
	stages := append(make([]string, 0, len(images)+1), "scratch")
	byDigest := 0
	for _, image := range images {
		switch {
		case slices.Contains(stages, image[1]):
		case regexp.MustCompile(`@sha256:[0-9a-f]{64}$`).MatchString(image[1]):
			byDigest++
		default:
			t.Errorf("Dockerfile: %s has no digest", image[1])
		}
		stages = append(stages, image[2])
	}
	if byDigest == 0 {
		t.Error("Dockerfile: no image is named by digest")
	}
}

func inspect(t *testing.T, index v1.ImageIndex, product, revision string) {
	t.Helper()
	want := map[string]string{
		"org.opencontainers.image.version": version, "org.opencontainers.image.revision": revision,
		"org.opencontainers.image.title": product, "org.opencontainers.image.licenses": "Apache-2.0",
	}
	has(t, "index", manifest(t, index).Annotations, want)
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	manifests := manifest(t, index).Manifests
	found := make([]string, 0, len(manifests))
	for _, descriptor := range manifests {
		architecture := descriptor.Platform.Architecture
		found = append(found, descriptor.Platform.String())
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		has(t, architecture, config.Config.Labels, want)
		if config.Architecture != architecture || config.OS != "linux" {
			t.Errorf("%s: the image's configuration is for %s/%s", architecture, config.OS, config.Architecture)
		}
		if config.Config.User != "65532:65532" {
			t.Errorf("%s: runs as %q", architecture, config.Config.User)
		}
		if !slices.Equal(config.Config.Entrypoint, []string{"/" + product}) {
			t.Errorf("%s: starts %v", architecture, config.Config.Entrypoint)
		}
		layers, err := image.Layers()
		if err != nil {
			t.Fatal(err)
		}
		if len(layers) > 3 {
			t.Errorf("%s: %d layers", architecture, len(layers))
		}
		binary := files(t, image, architecture, "/"+product)
		static(t, binary, machines[architecture])
		if architecture == runtime.GOARCH {
			tellsVersion(t, binary, product+" version "+version+"+"+revision[:12]+"\n")
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("platforms are %v", found)
	}
}

// files checks all files of an image, and returns the content of one.
func files(t *testing.T, image v1.Image, architecture, wanted string) []byte {
	t.Helper()
	content := mutate.Extract(image)
	defer func() { _ = content.Close() }()
	var binary []byte
	var names []string
	for archive := tar.NewReader(content); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Mode&0o022 != 0 || header.Mode&0o7000 != 0 {
			t.Errorf("%s: %s may be written by the user that runs it: mode %o of user %d", architecture, header.Name, header.Mode, header.Uid)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		name := "/" + header.Name
		names = append(names, name)
		if name != wanted {
			continue
		}
		if header.Mode&0o001 == 0 {
			t.Errorf("%s: %s is not executable by everybody: mode %o", architecture, name, header.Mode)
		}
		if binary, err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	if want := []string{wanted, "/etc/group", "/etc/passwd", "/licenses/LICENSE"}; !slices.Equal(names, want) {
		t.Errorf("%s: the files are %v, want %v", architecture, names, want)
	}
	return binary
}

// static checks that a binary is for a machine and needs no other file to run.
func static(t *testing.T, binary []byte, machine elf.Machine) {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	if file.Machine != machine {
		t.Errorf("binary is for %s, want %s", file.Machine, machine)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			t.Errorf("%s binary is linked dynamically", machine)
		}
	}
}

func tellsVersion(t *testing.T, binary []byte, want string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(path, binary, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput()
	if err != nil || string(out) != want {
		t.Errorf("--version prints %q, want %q: %v", out, want, err)
	}
}

func has(t *testing.T, what string, labels, want map[string]string) {
	t.Helper()
	for _, label := range slices.Sorted(maps.Keys(want)) {
		if labels[label] != want[label] {
			t.Errorf("%s: %s is %q, want %q", what, label, labels[label], want[label])
		}
	}
}

// open reads an image archive as a container runtime does. The archive's layout must contain one index.
func open(t *testing.T, path string) v1.ImageIndex {
	t.Helper()
	folder := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "tar", "-xf", path, "-C", folder).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	whole, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	entries := manifest(t, whole).Manifests
	if len(entries) != 1 {
		t.Fatalf("%d images in %s", len(entries), path)
	}
	index, err := whole.ImageIndex(entries[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func manifest(t *testing.T, index v1.ImageIndex) *v1.IndexManifest {
	t.Helper()
	found, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

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
		data, err := os.ReadFile(filepath.Join(root(t), path))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(c.path, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
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
