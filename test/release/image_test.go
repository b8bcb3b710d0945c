package release

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

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
			tellsVersion(t, binary, product, revision)
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
	want := []string{wanted, "/etc/group", "/etc/passwd", "/licenses/LICENSE"}
	slices.Sort(want)
	if !slices.Equal(names, want) {
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

// tellsVersion checks what a program of this machine's platform prints as its version.
func tellsVersion(t *testing.T, binary []byte, product, revision string) {
	t.Helper()
	args, want := []string{"--version"}, product+" version "
	if product == plugin {
		args, want = []string{"version"}, ""
	}
	want += version + "+" + revision[:12] + "\n"
	path := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(path, binary, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil || string(out) != want {
		t.Errorf("%s %v prints %q, want %q: %v", product, args, out, want, err)
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
