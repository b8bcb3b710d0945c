package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/apikey-operator/apikey-operator/hack/release/archive"
	"github.com/apikey-operator/apikey-operator/hack/release/chart"
	"github.com/apikey-operator/apikey-operator/hack/release/image"
)

// plugin is the program that has archives in addition to its image.
const plugin = "kubectl-apikey"

// product is a program with an image.
type product struct {
	name, title string
	ports       []string
}

var products = []product{
	{"apikey-operator", "Issues API keys that are declared as ApiKey objects", []string{"8081/tcp", "8443/tcp"}},
	{"apikey-verifier", "Answers gateways whether a request may pass with its API key", []string{"8080/tcp", "8081/tcp", "8443/tcp", "9001/tcp"}},
	{plugin, "Does for people, and for jobs, what they may do with API keys", nil},
}

// build is a program that was compiled for a platform.
type build struct{ program, platform string }

// images builds the images of all products.
func (r *release) images(ctx context.Context) ([]artifact, error) {
	all := make([]artifact, 0, len(products))
	for _, product := range products {
		reference, err := r.reference(product.name, r.version)
		if err != nil {
			return nil, err
		}
		index, err := r.image(ctx, product)
		if err != nil {
			return nil, err
		}
		all = append(all, artifact{reference: reference, file: product.name + ".tar", content: index})
	}
	return all, nil
}

// image compiles a product for all platforms and packs it in two layers: one with the user and the license,
// which all images share, and one with the binary.
func (r *release) image(ctx context.Context, p product) (v1.ImageIndex, error) {
	labels := r.labels(p.name, p.title)
	license, err := license()
	if err != nil {
		return nil, err
	}
	images := make([]v1.Image, 0, len(r.platforms))
	for _, platform := range r.platforms {
		binary, err := r.compile(ctx, p.name, platform)
		if err != nil {
			return nil, err
		}
		built, err := image.New(
			image.Description{Platform: platform, Entrypoint: []string{"/" + p.name}, Ports: p.ports, Labels: labels, Created: r.created},
			append(image.User(), image.File{Path: "/licenses/LICENSE", Mode: 0o444, Data: license}),
			[]image.File{{Path: "/" + p.name, Mode: 0o555, Data: binary}},
		)
		if err != nil {
			return nil, fmt.Errorf("build the image of %s for %s: %w", p.name, platform, err)
		}
		images = append(images, built)
	}
	return image.Index(labels, images...)
}

// labels returns the labels of an image, which are the annotations of an index or a chart, too.
func (r *release) labels(title, description string) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       title,
		"org.opencontainers.image.description": description,
		"org.opencontainers.image.version":     r.version,
		"org.opencontainers.image.revision":    r.revision,
		"org.opencontainers.image.created":     r.created.Format(time.RFC3339),
		"org.opencontainers.image.source":      "https://" + module,
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
}

func license() ([]byte, error) {
	text, err := os.ReadFile("LICENSE")
	if err != nil {
		return nil, fmt.Errorf("run release in the root folder of the repository: %w", err)
	}
	return text, nil
}

// chart packs the chart. Its version is the version of the release without v.
func (r *release) chart(ctx context.Context) (chart.Package, error) {
	listed, err := output(ctx, nil, "git", "ls-files", "charts/apikey-operator")
	if err != nil {
		return chart.Package{}, err
	}
	var files []archive.File
	for path := range strings.Lines(listed) {
		path = strings.TrimSpace(path)
		data, err := os.ReadFile(path)
		if err != nil {
			return chart.Package{}, err
		}
		files = append(files, archive.File{Path: strings.TrimPrefix(path, "charts"), Mode: 0o644, Data: data})
	}
	return chart.New(files, r.chartVersion(), r.version, r.created)
}

func (r *release) chartVersion() string { return strings.TrimPrefix(r.version, "v") }

// compile returns a static binary. It doesn't depend on the machine, the folder or the time of the build.
func (r *release) compile(ctx context.Context, program string, platform v1.Platform) ([]byte, error) {
	key := build{program, platform.String()}
	if binary, ok := r.compiled[key]; ok {
		return binary, nil
	}
	toolchain, err := toolchain(ctx)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "release-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file := filepath.Join(folder, program)
	const variables = module + "/internal/version."
	environment := []string{
		"GOOS=" + platform.OS, "GOARCH=" + platform.Architecture, "CGO_ENABLED=0", "GOTOOLCHAIN=" + toolchain,
		// These settings change the compiled code. An empty variable is unset, and GOENV=off ignores what `go env -w` stored.
		"GOENV=off", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off", "GOWORK=off",
	}
	// -buildvcs would also record the newest tag in the clone, which differs between clones.
	if _, err := output(ctx, environment, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X "+variables+"version="+r.version+" -X "+variables+"revision="+r.revision,
		"-o", file, "./cmd/"+program); err != nil {
		return nil, err
	}
	r.compiled[key], err = os.ReadFile(file)
	return r.compiled[key], err
}

// toolchain returns the Go version in go.mod. Another version would result in other binaries.
func toolchain(ctx context.Context) (string, error) {
	text, err := output(ctx, nil, "go", "mod", "edit", "-json")
	if err != nil {
		return "", err
	}
	var mod struct{ Toolchain string }
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return "", fmt.Errorf("go mod edit -json: %w", err)
	}
	if mod.Toolchain == "" {
		return "", errors.New("go.mod has no toolchain line: add one, or the images depend on the Go version of the machine")
	}
	return mod.Toolchain, nil
}
