// Command release builds what a release consists of: container images, archives of the command-line plugin, the
// chart, manifests, a bill of materials, checksums and signatures. It needs neither Docker nor a base image.
// `make image`, `make push` and `make release` run it.
//
// The files depend only on the commit, on the flags, and on the Go toolchain in go.mod. Everyone who builds
// them gets the same bytes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// options are the flags.
type options struct {
	version, registry, key, url, out string
	platforms, archives              string
}

// password is the variable with the password of an encrypted key. cosign uses the same.
const password = "COSIGN_PASSWORD"

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
	o := options{}
	flags.StringVar(&o.version, "version", "devel", "version of the release, which is also the tag of the images; for release, a semantic version such as v1.2.3")
	flags.StringVar(&o.registry, "registry", "", "registry and repository of the images, such as registry.example/team; required for push")
	flags.StringVar(&o.key, "signing-key", "", "file with a private key for ECDSA in PEM; if set, images and checksums are signed. "+password+" is its password")
	flags.StringVar(&o.url, "url", "", "folder from which users download the archives; absent means the one of this version on GitHub")
	flags.StringVar(&o.platforms, "platforms", "linux/amd64,linux/arm64", "platforms of the images")
	flags.StringVar(&o.archives, "archives", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64", "platforms of the archives")
	flags.StringVar(&o.out, "out", "dist", "folder for the files")
	flags.Usage = func() {
		_, _ = fmt.Fprintln(flags.Output(), `usage: release [flags] image|push|release

image writes each image to an OCI archive. push pushes the images to a registry with the credentials of `+"`docker login`"+`, and
the chart if the version is a semantic version. release writes everything to a folder with the name of the version.`)
		flags.PrintDefaults()
	}
	_ = flags.Parse(args) // flag.ExitOnError
	commands := map[string]func(*release, context.Context) error{
		"image": (*release).writeImages, "push": (*release).push, "release": (*release).writeAll,
	}
	command, ok := commands[flags.Arg(0)]
	if !ok {
		flags.Usage()
		return fmt.Errorf("unknown command %q: must be image, push or release", flags.Arg(0))
	}
	r, err := newRelease(ctx, o)
	if err != nil {
		return err
	}
	return command(r, ctx)
}

// writeImages writes the images to archives.
func (r *release) writeImages(ctx context.Context) error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	artifacts, err := r.images(ctx)
	if err != nil {
		return err
	}
	for _, artifact := range artifacts {
		file := filepath.Join(r.out, artifact.file)
		if err := artifact.writeTo(file); err != nil {
			return err
		}
		if err := artifact.report(file); err != nil {
			return err
		}
	}
	return nil
}

// push pushes the images and, for a semantic version, the chart.
func (r *release) push(ctx context.Context) error {
	if r.registry == "" {
		return errors.New("-registry is required for push, such as registry.example/team (make push REGISTRY=...)")
	}
	artifacts, err := r.images(ctx)
	if err != nil {
		return err
	}
	if r.semantic() {
		packed, err := r.chart(ctx)
		if err != nil {
			return err
		}
		artifact, err := r.chartArtifact(packed)
		if err != nil {
			return err
		}
		artifacts = append(artifacts, artifact)
	}
	for _, artifact := range artifacts {
		if err := artifact.push(ctx, r.key); err != nil {
			return err
		}
		if err := artifact.report(""); err != nil {
			return err
		}
	}
	return nil
}
