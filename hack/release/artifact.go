package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/apikey-operator/apikey-operator/hack/release/chart"
	"github.com/apikey-operator/apikey-operator/hack/release/image"
	"github.com/apikey-operator/apikey-operator/hack/release/sign"
)

// artifact is what a registry stores: an image or the chart.
type artifact struct {
	reference name.Tag
	// file is the name of its archive.
	file    string
	content image.Artifact
}

// reference returns the name of an artifact in the registry.
func (r *release) reference(repository, tag string) (name.Tag, error) {
	if r.registry != "" {
		repository = r.registry + "/" + repository
	}
	reference, err := name.NewTag(repository + ":" + tag)
	if err == nil && strings.Contains(r.registry, "//") {
		err = errors.New("must be host[:port][/path], without https://")
	}
	if err != nil {
		return reference, fmt.Errorf("invalid -registry=%s: %w", r.registry, err)
	}
	return reference, nil
}

const chartName = "apikey-operator"

// chartArtifact returns the chart as an artifact. It has a repository of its own, because the operator's image has the name of the chart. A
// registry does not accept the plus sign of a version in a tag; validVersion has refused it before.
func (r *release) chartArtifact(packed chart.Package) (artifact, error) {
	a := artifact{file: chartName + "-chart-" + r.chartVersion() + ".tar"}
	var err error
	if a.reference, err = r.reference("charts/"+chartName, r.chartVersion()); err != nil {
		return a, err
	}
	a.content, err = packed.Artifact(r.labels(chartName, "Helm chart of apikey-operator"))
	return a, err
}

// writeTo writes an artifact to an OCI archive.
func (a artifact) writeTo(file string) error {
	return image.Archive(file, familiar(a.reference.Name()), a.reference.TagStr(), a.content)
}

// push pushes an artifact and, if there is a key, its signature.
func (a artifact) push(ctx context.Context, key *sign.Key) error {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if err := remote.Push(a.reference, a.content, options...); err != nil {
		return fmt.Errorf("push %s: %w", a.reference, err)
	}
	if key == nil {
		return nil
	}
	digest, err := a.content.Digest()
	if err != nil {
		return err
	}
	tag, signature, err := key.Image(a.reference.Digest(digest.String()))
	if err != nil {
		return err
	}
	if err := remote.Write(tag, signature, options...); err != nil {
		return fmt.Errorf("push the signature of %s: %w", a.reference, err)
	}
	return nil
}

// report prints the name of an artifact by digest, which deployments should use, and its file.
func (a artifact) report(file string) error {
	digest, err := a.content.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s@%s", familiar(a.reference.Name()), digest)
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
