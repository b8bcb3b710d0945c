// Command release compiles the binaries for each platform and packs them into container images. It doesn't
// need Docker and doesn't pull a base image. `make image` and `make push` run it.
//
// The images depend only on the commit, on -version, and on the Go toolchain in go.mod. Everyone who builds
// them gets the same digests.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/apikey-operator/apikey-operator/hack/release/image"
)

const module = "github.com/apikey-operator/apikey-operator"

// product is a binary with an image.
type product struct {
	name, title string
	ports       []string
}

var products = []product{
	{"apikey-operator", "Issues API keys that are declared as ApiKey objects", []string{"8081/tcp", "8443/tcp"}},
	{"apikey-verifier", "Answers gateways whether a request may pass with its API key", []string{"8080/tcp", "8081/tcp", "8443/tcp", "9001/tcp"}},
}

// validVersion matches the tags that a registry accepts. The version is also used in annotations.
var validVersion = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// release has what an image depends on, apart from the sources.
type release struct {
	version, revision string
	created           time.Time
	registry          string
	platforms         []v1.Platform
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ExitOnError)
	version := flags.String("version", "devel", "version of the release, which is also the tag of the images")
	registry := flags.String("registry", "", "registry and repository of the images, such as registry.example/team; required for push")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64", "platforms to build for")
	out := flags.String("out", "dist", "folder for the archives of the images")
	flags.Usage = func() {
		_, _ = fmt.Fprintln(flags.Output(), "usage: release [flags] image|push\n\nimage writes each image to an OCI archive. push pushes the images to a registry with the credentials of `docker login`.")
		flags.PrintDefaults()
	}
	_ = flags.Parse(args) // flag.ExitOnError
	r, err := newRelease(ctx, *version, *registry, *platforms)
	if err != nil {
		return err
	}
	var deliver func(reference name.Tag, product product, index v1.ImageIndex) error
	switch flags.Arg(0) {
	case "image":
		if err := os.MkdirAll(*out, 0o755); err != nil {
			return err
		}
		deliver = func(reference name.Tag, product product, index v1.ImageIndex) error {
			file := filepath.Join(*out, product.name+".tar")
			if err := image.Archive(file, familiar(reference.Name()), reference.TagStr(), index); err != nil {
				return err
			}
			return report(reference, file, index)
		}
	case "push":
		if r.registry == "" {
			return errors.New("-registry is required for push, such as registry.example/team (make push REGISTRY=...)")
		}
		deliver = func(reference name.Tag, _ product, index v1.ImageIndex) error {
			if err := remote.WriteIndex(reference, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
				return fmt.Errorf("push %s: %w", reference, err)
			}
			return report(reference, "", index)
		}
	default:
		flags.Usage()
		return fmt.Errorf("unknown command %q: must be image or push", flags.Arg(0))
	}
	for _, product := range products {
		reference, err := r.reference(product)
		if err != nil {
			return err
		}
		index, err := r.build(ctx, product)
		if err != nil {
			return err
		}
		if err := deliver(reference, product, index); err != nil {
			return err
		}
	}
	return nil
}

func newRelease(ctx context.Context, version, registry, platforms string) (release, error) {
	r := release{version: version, registry: registry}
	if !validVersion.MatchString(version) {
		return r, fmt.Errorf("invalid -version=%q: must be a valid image tag, such as v1.2.3", version)
	}
	for text := range strings.SplitSeq(platforms, ",") {
		platform, err := v1.ParsePlatform(text)
		if err != nil || platform.OS != "linux" || platform.Architecture == "" {
			return r, fmt.Errorf("invalid -platforms %q: must be a Linux platform, such as linux/amd64 or linux/arm64", text)
		}
		r.platforms = append(r.platforms, *platform)
	}
	commit, err := output(ctx, nil, "git", "show", "--no-patch", "--format=%H %ct", "HEAD")
	if err != nil {
		return r, fmt.Errorf("read the commit for the labels of the images: %w", err)
	}
	var seconds int64
	if _, err := fmt.Sscan(commit, &r.revision, &seconds); err != nil {
		return r, fmt.Errorf("parse the output %q of git show: %w", commit, err)
	}
	r.created = time.Unix(seconds, 0).UTC()
	changes, err := output(ctx, nil, "git", "status", "--porcelain")
	if err != nil {
		return r, err
	}
	if changes != "" {
		r.revision += "-modified"
	}
	return r, nil
}

// reference returns the name of a product's image.
func (r release) reference(p product) (name.Tag, error) {
	repository := p.name
	if r.registry != "" {
		repository = r.registry + "/" + p.name
	}
	reference, err := name.NewTag(repository + ":" + r.version)
	if err == nil && strings.Contains(r.registry, "//") {
		err = errors.New("must be host[:port][/path], without https://")
	}
	if err != nil {
		return reference, fmt.Errorf("invalid -registry=%s: %w", r.registry, err)
	}
	return reference, nil
}

// build compiles a product for all platforms and packs it in two layers: one with the user and the license,
// which all images share, and one with the binary.
func (r release) build(ctx context.Context, p product) (v1.ImageIndex, error) {
	labels := map[string]string{
		"org.opencontainers.image.title":       p.name,
		"org.opencontainers.image.description": p.title,
		"org.opencontainers.image.version":     r.version,
		"org.opencontainers.image.revision":    r.revision,
		"org.opencontainers.image.created":     r.created.Format(time.RFC3339),
		"org.opencontainers.image.source":      "https://" + module,
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
	license, err := os.ReadFile("LICENSE")
	if err != nil {
		return nil, fmt.Errorf("run release in the root folder of the repository: %w", err)
	}
	images := make([]v1.Image, 0, len(r.platforms))
	for _, platform := range r.platforms {
		binary, err := r.compile(ctx, p, platform)
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

// compile returns a static binary. It doesn't depend on the machine, the folder or the time of the build.
func (r release) compile(ctx context.Context, p product, platform v1.Platform) ([]byte, error) {
	toolchain, err := toolchain(ctx)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "release-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file := filepath.Join(folder, p.name)
	const variables = module + "/internal/version."
	environment := []string{
		"GOOS=" + platform.OS, "GOARCH=" + platform.Architecture, "CGO_ENABLED=0", "GOTOOLCHAIN=" + toolchain,
		// These settings change the compiled code. An empty variable is unset, and GOENV=off ignores what `go env -w` stored.
		"GOENV=off", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off", "GOWORK=off",
	}
	// -buildvcs would also record the newest tag in the clone, which differs between clones.
	if _, err := output(ctx, environment, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X "+variables+"version="+r.version+" -X "+variables+"revision="+r.revision,
		"-o", file, "./cmd/"+p.name); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
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

// report prints the name of an image by digest, which deployments should use, and its file.
func report(reference name.Tag, file string, index v1.ImageIndex) error {
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s@%s", familiar(reference.Name()), digest)
	if file != "" {
		fmt.Printf("\t%s", file)
	}
	fmt.Println()
	return nil
}

// familiar returns a reference as container runtimes write it. Only the registry library calls Docker Hub by
// the name of its server.
func familiar(reference string) string {
	if rest, ok := strings.CutPrefix(reference, name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest
	}
	return reference
}

// output runs a command and returns its standard output. An error includes the standard error.
func output(ctx context.Context, environment []string, command string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, command, args...)
	c.Env = append(os.Environ(), environment...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", command, args[0], err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
