// Package release builds what hack/release builds twice, and inspects it with the programs that people use: a container runtime's libraries,
// sha256sum, krew, Helm and go install. The second time, the compiled code comes from Go's cache: Go promises that its compiler is deterministic
// (https://go.dev/blog/rebuild), and the tests don't check that.
//
// By default there are two archives, one of each kind, and the one for Windows has a small stand-in for the plugin. RELEASE=full builds all archives,
// which takes many minutes with an empty build cache.
package release

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const (
	version = "v1.9.8"
	plugin  = "kubectl-apikey"
)

var products = []string{"apikey-operator", "apikey-verifier", plugin}

// full says that all archives are built, with the plugin itself in each.
var full = os.Getenv("RELEASE") == "full"

// platforms returns the platforms of the archives that the tests build.
func platforms() []string {
	if full {
		return []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64"}
	}
	return []string{"linux/" + runtime.GOARCH, "windows/" + runtime.GOARCH}
}

// TestRelease builds the same commit in two folders, with different time zones and Go settings.
func TestRelease(t *testing.T) {
	one := commit(t, "here", "UTC")
	other := commit(t, filepath.Join("a", "folder", "elsewhere"), "Asia/Tokyo")
	key := newKey(t)
	args := []string{"-signing-key=" + key.file, "-archives=" + strings.Join(platforms(), ","), "release"}
	first, second := release(t, one, args...), release(t, other, args...)
	if first != second {
		t.Errorf("two builds of one commit print different lines:\n%s\n%s", first, second)
	}
	if names := regexp.MustCompile(`(?m)^docker\.io/library/(apikey-operator|apikey-verifier|kubectl-apikey):`+version+`@sha256:[0-9a-f]{64}\s`).FindAllString(first, -1); len(names) != len(products) {
		t.Errorf("want the names of %d images by digest, got:\n%s", len(products), first)
	}
	files := readAll(t, one.dist())
	for name, data := range readAll(t, other.dist()) {
		if !bytes.Equal(files[name], data) {
			t.Errorf("two builds of one commit differ in %s: %d and %d bytes", name, len(files[name]), len(data))
		}
	}
	t.Run("has the files of a release", func(t *testing.T) {
		want := append(archiveNames(), "SHA256SUMS", "SHA256SUMS.sig", "apikey-operator-1.9.8.tgz", "apikey-operator-chart-1.9.8.tar", "apikey.yaml",
			"crds.yaml", "install.yaml", "sbom.cdx.json")
		for _, product := range products {
			want = append(want, product+".tar")
		}
		slices.Sort(want)
		if got := names(files); !slices.Equal(got, want) {
			t.Errorf("the files are\n%v, want\n%v", got, want)
		}
		if text := string(files["install.yaml"]); !strings.Contains(text, "image: apikey-operator:"+version) || strings.Contains(text, "kind: CustomResourceDefinition") {
			t.Error("install.yaml does not name the image of this version, or has a CRD")
		}
	})
	for _, product := range products {
		t.Run("image of "+product, func(t *testing.T) {
			inspect(t, open(t, filepath.Join(one.dist(), product+".tar")), product, one.revision)
		})
	}
	t.Run("checksums and their signature", func(t *testing.T) { checksums(t, one.dist(), files, key) })
	t.Run("archives of the plugin", func(t *testing.T) { archives(t, files, one.revision) })
	t.Run("krew installs the plugin", func(t *testing.T) { krewInstalls(t, one.dist()) })
	t.Run("bill of materials", func(t *testing.T) { billOfMaterials(t, files) })
	t.Run("push puts into the registry what it prints, signed", func(t *testing.T) { pushes(t, one, files, key) })
	t.Run("invalid settings are named", func(t *testing.T) { invalidSettingsAreNamed(t, one) })
	t.Run("an earlier build is not mixed in", func(t *testing.T) {
		if out, err := one.run(t.Context(), ".git/release", "-version="+version, "release"); err == nil || !strings.Contains(out, "dist/"+version+" exists") {
			t.Errorf("want a refusal, got %v\n%s", err, out)
		}
	})

	if err := os.WriteFile(filepath.Join(other.path, "cmd", "apikey-operator", "more.go"), []byte("package main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := release(t, other, "-platforms=linux/"+runtime.GOARCH, "image")
	index := open(t, filepath.Join(other.path, "dist", "apikey-operator.tar"))
	if annotations := manifest(t, index).Annotations; annotations["org.opencontainers.image.revision"] != other.revision+"-modified" {
		t.Errorf("changed sources are labelled with the commit's revision alone: %v\n%s", annotations, changed)
	}
}

func invalidSettingsAreNamed(t *testing.T, checkout checkout) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"push"}, "-registry is required"},
		{[]string{"-version=1.0+build", "image"}, `-version="1.0+build"`},
		{[]string{"-version=1.0", "release"}, "-version=1.0: must be a semantic version"},
		{[]string{"-version=v1.0", "release"}, "-version=v1.0: must be a semantic version"},
		{[]string{"-platforms=windows/amd64", "image"}, `-platforms "windows/amd64"`},
		{[]string{"-archives=linux", "release"}, `-archives "linux"`},
		{[]string{"-registry=https://registry.example", "push"}, "-registry=https://registry.example"},
		{[]string{"-signing-key=" + empty, "push"}, "-signing-key=" + empty + ": not a private key"},
		{[]string{"-signing-key=/nowhere", "push"}, "read the key of -signing-key"},
		{[]string{"fly"}, `command "fly"`},
	} {
		out, err := checkout.run(t.Context(), append([]string{".git/release"}, c.args...)...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("release %v: want a failure that contains %q, got %v\n%s", c.args, c.want, err, out)
		}
	}
}

// checksums checks SHA256SUMS with the program that people use, and its signature by the standard library.
func checksums(t *testing.T, folder string, files map[string][]byte, key signingKey) {
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	check.Dir = folder
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	sums := string(files["SHA256SUMS"])
	for name := range files {
		if strings.HasPrefix(name, "SHA256SUMS") == strings.Contains(sums, "  "+name+"\n") {
			t.Errorf("SHA256SUMS lists %s: %t", name, strings.Contains(sums, "  "+name+"\n"))
		}
	}
	key.verify(t, files["SHA256SUMS"], string(files["SHA256SUMS.sig"]))
}

// dist returns the folder with the files of the release.
func (c checkout) dist() string { return filepath.Join(c.path, "dist", version) }

// readAll returns the files of a folder by name.
func readAll(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		if files[entry.Name()], err = os.ReadFile(filepath.Join(folder, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
