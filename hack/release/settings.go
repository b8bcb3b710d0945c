package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/mod/semver"

	"github.com/apikey-operator/apikey-operator/hack/release/sign"
)

const module = "github.com/apikey-operator/apikey-operator"

// validVersion matches the tags that a registry accepts. The version is also used in annotations.
var validVersion = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// release has what the files depend on, apart from the sources.
type release struct {
	version, revision string
	created           time.Time
	registry          string
	// platforms are those of the images, and archives those of the archives.
	platforms, archives []v1.Platform
	// key signs, or is nil.
	key *sign.Key
	// url is the folder from which users download the archives, and out the one to write to.
	url, out string

	compiled map[build][]byte
}

// newRelease reads the settings and the commit.
func newRelease(ctx context.Context, o options) (*release, error) {
	r := &release{version: o.version, registry: o.registry, url: strings.TrimSuffix(o.url, "/"), out: o.out, compiled: map[build][]byte{}}
	if !validVersion.MatchString(o.version) {
		return r, fmt.Errorf("invalid -version=%q: must be a valid image tag, such as v1.2.3", o.version)
	}
	if r.url == "" {
		r.url = "https://" + module + "/releases/download/" + r.version
	}
	var err error
	if r.platforms, err = platforms(o.platforms, "linux"); err != nil {
		return r, fmt.Errorf("invalid -platforms %w", err)
	}
	if r.archives, err = platforms(o.archives, "linux", "darwin", "windows"); err != nil {
		return r, fmt.Errorf("invalid -archives %w", err)
	}
	if o.key != "" {
		text, err := os.ReadFile(o.key)
		if err != nil {
			return r, fmt.Errorf("read the key of -signing-key: %w", err)
		}
		if r.key, err = sign.Load(text, os.Getenv(password)); err != nil {
			return r, fmt.Errorf("-signing-key=%s: %w", o.key, err)
		}
	}
	return r, r.readCommit(ctx)
}

func platforms(list string, systems ...string) (found []v1.Platform, err error) {
	for text := range strings.SplitSeq(list, ",") {
		platform, err := v1.ParsePlatform(text)
		if err != nil || !slices.Contains(systems, platform.OS) || platform.Architecture == "" {
			return nil, fmt.Errorf("%q: must be a platform of %s, such as linux/amd64 or linux/arm64", text, strings.Join(systems, ", "))
		}
		found = append(found, *platform)
	}
	return found, nil
}

// readCommit reads the commit, which becomes the revision, and its time.
func (r *release) readCommit(ctx context.Context) error {
	commit, err := output(ctx, nil, "git", "show", "--no-patch", "--format=%H %ct", "HEAD")
	if err != nil {
		return fmt.Errorf("read the commit for the labels of the images: %w", err)
	}
	var seconds int64
	if _, err := fmt.Sscan(commit, &r.revision, &seconds); err != nil {
		return fmt.Errorf("parse the output %q of git show: %w", commit, err)
	}
	r.created = time.Unix(seconds, 0).UTC()
	changes, err := output(ctx, nil, "git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		r.revision += "-modified"
	}
	return nil
}

// semantic reports whether the version is a semantic version, which charts and krew require. Shortened ones such as v1.2 are not.
func (r *release) semantic() bool {
	return semver.IsValid(r.version) && semver.Canonical(r.version) == r.version
}

var errNotSemantic = errors.New("must be a semantic version for release, such as v1.2.3 or v1.2.3-rc.1 (make release VERSION=...)")

// output runs a command and returns its standard output. An error includes the standard error.
func output(ctx context.Context, environment []string, command string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, command, args...)
	c.Env = append(os.Environ(), environment...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", command, strings.Join(args[:min(1, len(args))], " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
