// Command release compiles the binaries for each platform and packs them into container images, without Docker and without pulling
// anything. It is what `make image` and `make push` start.
//
// The images are a function of the commit, of -version and of the Go toolchain that go.mod names: whoever builds them again gets the
// same digests.
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

// product is a binary that gets an image.
type product struct {
	name, title string
	ports       []string
}

var products = []product{
	{"apikey-operator", "Issues API keys that are declared as ApiKey objects", []string{"8081/tcp", "8443/tcp"}},
	{"apikey-verifier", "Answers gateways whether a request may pass with its API key", []string{"8080/tcp", "8081/tcp", "8443/tcp", "9001/tcp"}},
}

// Annotations and references hold it. The grammar is that of an image's tag.
var validVersion = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// release is what an image is built from, besides the sources.
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
	version := flags.String("version", "devel", "version of the release, which is also the images' tag")
	registry := flags.String("registry", "", "registry and repository that images belong to, such as registry.example/team; push needs it")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64", "what to build for")
	out := flags.String("out", "dist", "folder for the images' archives")
	flags.Usage = func() {
		_, _ = fmt.Fprintln(flags.Output(), "usage: release [flags] image|push\n\nimage writes an OCI archive of each image; push puts them into a registry, as who `docker login` has logged in.")
		flags.PrintDefaults()
	}
	_ = flags.Parse(args) // exits by itself
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
			return errors.New("-registry is empty: want where the images belong, such as registry.example/team (make push REGISTRY=...)")
		}
		deliver = func(reference name.Tag, _ product, index v1.ImageIndex) error {
			if err := remote.WriteIndex(reference, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
				return fmt.Errorf("push %s: %w", reference, err)
			}
			return report(reference, "", index)
		}
	default:
		flags.Usage()
		return fmt.Errorf("command %q: want image or push", flags.Arg(0))
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
		return r, fmt.Errorf("-version=%q: want what can be an image's tag, such as v1.2.3", version)
	}
	for text := range strings.SplitSeq(platforms, ",") {
		platform, err := v1.ParsePlatform(text)
		if err != nil || platform.OS != "linux" || platform.Architecture == "" {
			return r, fmt.Errorf("-platforms: %q: want linux/amd64, linux/arm64 or the like", text)
		}
		r.platforms = append(r.platforms, *platform)
	}
	commit, err := output(ctx, nil, "git", "show", "--no-patch", "--format=%H %ct", "HEAD")
	if err != nil {
		return r, fmt.Errorf("the images' labels name the commit, and there is none: %w", err)
	}
	var seconds int64
	if _, err := fmt.Sscan(commit, &r.revision, &seconds); err != nil {
		return r, fmt.Errorf("git show: %q: %w", commit, err)
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

// reference is what a product's image is called.
func (r release) reference(p product) (name.Tag, error) {
	repository := p.name
	if r.registry != "" {
		repository = r.registry + "/" + p.name
	}
	reference, err := name.NewTag(repository + ":" + r.version)
	if err == nil && strings.Contains(r.registry, "//") {
		err = errors.New("want host[:port][/path], without https://")
	}
	if err != nil {
		return reference, fmt.Errorf("-registry=%s: %w", r.registry, err)
	}
	return reference, nil
}

// build compiles a product for all platforms and packs it: one layer with the user, which all images share, and one with the binary.
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
		return nil, fmt.Errorf("run this in the repository's root folder: %w", err)
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
			return nil, fmt.Errorf("image of %s for %s: %w", p.name, platform, err)
		}
		images = append(images, built)
	}
	return image.Index(labels, images...)
}

// compile returns a static binary that knows nothing of the machine, the folder or the moment that it was built in.
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
		// Settings of the machine that change the code. An empty variable is one that isn't set: GOENV=off keeps `go env -w` from filling it.
		"GOENV=off", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off", "GOWORK=off",
	}
	// Without -buildvcs, which also writes down the newest tag that the clone happens to have.
	if _, err := output(ctx, environment, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X "+variables+"version="+r.version+" -X "+variables+"revision="+r.revision,
		"-o", file, "./cmd/"+p.name); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// toolchain is the Go version that go.mod names; another one makes other binaries.
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
		return "", errors.New("go.mod has no line 'toolchain', and so the images would depend on the machine's Go")
	}
	return mod.Toolchain, nil
}

// report prints what was made: its name by digest, which is what a deployment should name, and where it is.
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

// familiar is a reference as container runtimes write it; only the registry library knows Docker Hub by the name of its server.
func familiar(reference string) string {
	if rest, ok := strings.CutPrefix(reference, name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest
	}
	return reference
}

// output runs a command and returns what it prints; when it fails, the error has what it complains of.
func output(ctx context.Context, environment []string, command string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, command, args...)
	c.Env = append(os.Environ(), environment...)
	var complaints bytes.Buffer
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", command, args[0], err, complaints.String())
	}
	return strings.TrimSpace(string(out)), nil
}
