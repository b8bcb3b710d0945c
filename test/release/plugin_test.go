package release

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
	"sigs.k8s.io/yaml"
)

func names(files map[string][]byte) []string { return slices.Sorted(maps.Keys(files)) }

// archiveName returns the name of the plugin's archive for a platform, and of the program in it.
func archiveName(platform string) (archive, program string) {
	system, architecture, _ := strings.Cut(platform, "/")
	program, extension := plugin, ".tar.gz"
	if system == "windows" {
		program, extension = plugin+".exe", ".zip"
	}
	return fmt.Sprintf("%s_%s_%s_%s%s", plugin, version, system, architecture, extension), program
}

func archiveNames() (all []string) {
	for _, platform := range platforms() {
		name, _ := archiveName(platform)
		all = append(all, name)
	}
	return all
}

// archives checks what is in the archives, and that the programs are for their platforms.
func archives(t *testing.T, files map[string][]byte, revision string) {
	license, err := os.ReadFile(filepath.Join(root(t), "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	for _, platform := range platforms() {
		archive, program := archiveName(platform)
		content := unpack(t, archive, files[archive])
		if got, want := names(content), []string{"LICENSE", program}; !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", archive, got, want)
			continue
		}
		if !bytes.Equal(content["LICENSE"], license) {
			t.Errorf("%s has another license", archive)
		}
		info, err := buildinfo.Read(bytes.NewReader(content[program]))
		if err != nil {
			t.Errorf("%s: %v", archive, err)
			continue
		}
		settings := map[string]string{}
		for _, setting := range info.Settings {
			settings[setting.Key] = setting.Value
		}
		if got := settings["GOOS"] + "/" + settings["GOARCH"]; got != platform || settings["CGO_ENABLED"] != "0" {
			t.Errorf("%s has a program for %s, with CGO_ENABLED=%s", archive, got, settings["CGO_ENABLED"])
		}
		if platform == runtime.GOOS+"/"+runtime.GOARCH {
			tellsVersion(t, content[program], plugin, revision)
		}
	}
}

// unpack returns the files of an archive. All must be regular, and only programs executable.
func unpack(t *testing.T, name string, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	add := func(path string, mode os.FileMode, content io.Reader) {
		data, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		if executable := strings.HasPrefix(path, plugin); !mode.IsRegular() || executable != (mode.Perm() == 0o755) || !executable && mode.Perm() != 0o644 {
			t.Errorf("%s: %s has the mode %s", name, path, mode)
		}
		files[path] = data
	}
	if strings.HasSuffix(name, ".zip") {
		reader, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range reader.File {
			content, err := file.Open()
			if err != nil {
				t.Fatal(err)
			}
			add(file.Name, file.Mode(), content)
		}
		return files
	}
	reader, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	for content := tar.NewReader(reader); ; {
		header, err := content.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		add(header.Name, header.FileInfo().Mode(), content)
	}
}

// krewInstalls checks the manifest with krew's own validator, and lets krew install each archive as if it ran on that platform.
func krewInstalls(t *testing.T, dist string) {
	tools := t.TempDir()
	run(t, filepath.Join(root(t), "hack", "krew"), nil, "go", "build", "-o", tools+"/", "sigs.k8s.io/krew/cmd/krew", "sigs.k8s.io/krew/cmd/validate-krew-manifest")
	manifest := filepath.Join(dist, "apikey.yaml")
	run(t, dist, nil, filepath.Join(tools, "validate-krew-manifest"), "-manifest="+manifest, "-skip-install")

	var parsed struct {
		Spec struct{ Platforms []struct{ URI string } }
	}
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &parsed); err != nil {
		t.Fatal(err)
	}
	if len(parsed.Spec.Platforms) != len(platforms()) {
		t.Errorf("the manifest has %d platforms, want %d", len(parsed.Spec.Platforms), len(platforms()))
	}
	for i, platform := range platforms() {
		archive, program := archiveName(platform)
		if want := "https://github.com/apikey-operator/apikey-operator/releases/download/" + version + "/" + archive; parsed.Spec.Platforms[i].URI != want {
			t.Errorf("the manifest has %s, want %s", parsed.Spec.Platforms[i].URI, want)
		}
		system, architecture, _ := strings.Cut(platform, "/")
		home := t.TempDir()
		// krew compares the checksum, unpacks, and links the program that the manifest names.
		run(t, dist, []string{"KREW_ROOT=" + home, "KREW_OS=" + system, "KREW_ARCH=" + architecture},
			filepath.Join(tools, "krew"), "install", "--manifest="+manifest, "--archive="+filepath.Join(dist, archive))
		if _, err := os.Stat(filepath.Join(home, "store", "apikey", version, program)); err != nil {
			t.Errorf("%s: krew installed no program: %v", platform, err)
		}
		if platform == runtime.GOOS+"/"+runtime.GOARCH {
			out := run(t, dist, nil, filepath.Join(home, "bin", "kubectl-apikey"), "version")
			if !strings.HasPrefix(out, version+"+") {
				t.Errorf("what krew installed prints the version %q", out)
			}
		}
	}
}

// billOfMaterials compares the bill with what `go version -m` says of the programs.
func billOfMaterials(t *testing.T, files map[string][]byte) {
	var bill struct {
		BOMFormat, SpecVersion string
		Metadata               struct{ Component struct{ Version string } }
		Components             []struct {
			BOMRef string `json:"bom-ref"`
			Type   string
			PURL   string
		}
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
	}
	if err := json.Unmarshal(files["sbom.cdx.json"], &bill); err != nil {
		t.Fatal(err)
	}
	if bill.BOMFormat != "CycloneDX" || bill.SpecVersion == "" || bill.Metadata.Component.Version != version {
		t.Errorf("the bill is %s %s of version %s", bill.BOMFormat, bill.SpecVersion, bill.Metadata.Component.Version)
	}
	libraries, applications := map[string]bool{}, map[string]bool{}
	for _, component := range bill.Components {
		if component.Type == "application" {
			applications[component.BOMRef] = true
		} else {
			libraries[component.BOMRef] = component.BOMRef == component.PURL
		}
	}
	dependencies := map[string][]string{}
	for _, dependency := range bill.Dependencies {
		dependencies[dependency.Ref] = dependency.DependsOn
	}
	for _, product := range products {
		for _, architecture := range []string{"amd64", "arm64"} {
			if !applications[product+"/linux/"+architecture] {
				t.Errorf("the bill lacks %s for %s", product, architecture)
			}
		}
	}
	for _, platform := range platforms() {
		archive, program := archiveName(platform)
		path := filepath.Join(t.TempDir(), program)
		if err := os.WriteFile(path, unpack(t, archive, files[archive])[program], 0o600); err != nil {
			t.Fatal(err)
		}
		want := packages(t, path)
		isReal := full || strings.HasPrefix(platform, "linux/")
		if got := dependencies[plugin+"/"+platform]; isReal && len(want) < 20 || !slices.Equal(got, want) {
			t.Errorf("the bill lists for %s\n%v, want\n%v", platform, got, want)
		}
		for _, ref := range want {
			if !libraries[ref] {
				t.Errorf("%s is not listed, or has another package URL", ref)
			}
		}
	}
}

// packages returns the package URLs of what a program consists of, in order.
func packages(t *testing.T, program string) []string {
	all := []string{"pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go")}
	for line := range strings.Lines(run(t, "", nil, "go", "version", "-m", program)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "dep" {
			all = append(all, "pkg:golang/"+fields[1]+"@"+strings.ReplaceAll(fields[2], "+", "%2B"))
		}
	}
	slices.Sort(all)
	return all
}

// TestGoInstall installs the plugin with go install from a module proxy that has this version, as people do. A replace directive in go.mod
// would make that fail.
func TestGoInstall(t *testing.T) {
	const path = "github.com/apikey-operator/apikey-operator"
	c := commit(t, "sources", "UTC")
	// Go keeps what it has installed by its version, so the version must change with the sources.
	version := version + "-test." + c.revision
	cache := strings.TrimSpace(run(t, "", nil, "go", "env", "GOMODCACHE"))
	t.Cleanup(func() {
		found, err := filepath.Glob(filepath.Join(cache, "cache", "download", path, "@v", version+".*"))
		if err != nil {
			t.Error(err)
		}
		for _, kept := range append(found, filepath.Join(cache, path+"@"+version)) {
			if err := os.RemoveAll(kept); err != nil {
				t.Error(err)
			}
		}
	})
	proxy, bin := t.TempDir(), t.TempDir()
	folder := filepath.Join(proxy, path, "@v")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := modzip.CreateFromVCS(&archive, module.Version{Path: path, Version: version}, c.path, "HEAD", ""); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(c.path, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"list": []byte(version + "\n"), version + ".info": []byte(`{"Version":"` + version + `"}`), version + ".mod": text, version + ".zip": archive.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	others := strings.TrimSpace(run(t, "", nil, "go", "env", "GOPROXY"))
	run(t, bin, []string{"GOBIN=" + bin, "GOPROXY=file://" + proxy + "," + others, "GONOSUMDB=" + path, "GOFLAGS=-trimpath -modcacherw"},
		"go", "install", path+"/cmd/"+plugin+"@"+version)
	if out := run(t, bin, nil, filepath.Join(bin, plugin), "version"); out != version+"\n" {
		t.Errorf("the program prints the version %q, want %s", out, version)
	}
}

// run runs a program and returns its output.
func run(t *testing.T, dir string, environment []string, command ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), command[0], command[1:]...)
	c.Dir = dir
	c.Env = append(os.Environ(), environment...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return string(out)
}
