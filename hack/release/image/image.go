// Package image builds container images from static binaries, without Docker and without a base image. The
// same files and description always result in the same digest. Don't run commands here, and don't read a
// clock.
package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/apikey-operator/apikey-operator/hack/release/archive"
)

// NonRoot is the user ID and group ID that images run as. Distroless images use the same. It is a number
// because the kubelet can't check runAsNonRoot for a user name.
const NonRoot = 65532

// noTime is the time of all files, so that layers with the same files are the same.
var noTime = time.Unix(0, 0)

const (
	annotationName = "org.opencontainers.image.ref.name"
	// containerd takes the name of an imported image from it.
	annotationContainerdName = "io.containerd.image.name"
)

// File is a file in an image.
type File = archive.File

// Description is the metadata of an image.
type Description struct {
	Platform   v1.Platform
	Entrypoint []string
	// Ports that the program listens on, such as "8080/tcp". They are for information only.
	Ports []string
	// Labels with the names of https://specs.opencontainers.org/image-spec/annotations/.
	Labels map[string]string
	// Created is the time of the commit, so that it doesn't depend on when the image is built.
	Created time.Time
}

// User returns the files that define the user of the images.
func User() []File {
	return []File{
		{Path: "/etc/passwd", Mode: 0o444, Data: fmt.Appendf(nil, "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:%d:%[1]d:nonroot:/:/sbin/nologin\n", NonRoot)},
		{Path: "/etc/group", Mode: 0o444, Data: fmt.Appendf(nil, "root:x:0:\nnonroot:x:%d:\n", NonRoot)},
	}
}

// New returns an image with the layers, from the bottom up. It runs as [NonRoot].
func New(description Description, layers ...[]File) (v1.Image, error) {
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	additions := make([]mutate.Addendum, 0, len(layers))
	for _, files := range layers {
		layer, err := newLayer(files)
		if err != nil {
			return nil, err
		}
		additions = append(additions, mutate.Addendum{
			Layer:     layer,
			MediaType: types.OCILayer,
			History:   v1.History{CreatedBy: "files " + files[len(files)-1].Path, Created: v1.Time{Time: description.Created}},
		})
	}
	image, err := mutate.Append(base, additions...)
	if err != nil {
		return nil, fmt.Errorf("add layers: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: description.Created}
	config.OS, config.Architecture, config.Variant = description.Platform.OS, description.Platform.Architecture, description.Platform.Variant
	config.Config.User = fmt.Sprintf("%d:%[1]d", NonRoot)
	config.Config.Entrypoint = description.Entrypoint
	config.Config.WorkingDir = "/"
	config.Config.Labels = description.Labels
	config.Config.ExposedPorts = map[string]struct{}{}
	for _, port := range description.Ports {
		config.Config.ExposedPorts[port] = struct{}{}
	}
	return mutate.ConfigFile(image, config)
}

// Index returns a multi-platform image.
func Index(annotations map[string]string, images ...v1.Image) (v1.ImageIndex, error) {
	additions := make([]mutate.IndexAddendum, 0, len(images))
	for _, image := range images {
		config, err := image.ConfigFile()
		if err != nil {
			return nil, err
		}
		additions = append(additions, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: config.Platform()}})
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), additions...)
	annotated, ok := mutate.Annotations(index, annotations).(v1.ImageIndex)
	if !ok {
		return nil, fmt.Errorf("annotations changed the index to a %T", annotated)
	}
	return annotated, nil
}

// Artifact is what has a name in a registry: an image, or an index of images.
type Artifact interface {
	mutate.Appendable
	remote.Taggable
}

// Archive writes an artifact to a tar file as an OCI image layout, for docker load, podman load, ctr images
// import and skopeo. reference is a name such as "docker.io/library/apikey-operator:v1.0.0", and tag is its
// tag.
func Archive(file, reference, tag string, artifact Artifact) (err error) {
	folder, err := os.MkdirTemp("", "oci-layout-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	target, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	named := layout.WithAnnotations(map[string]string{annotationName: tag, annotationContainerdName: reference})
	switch artifact := artifact.(type) {
	case v1.ImageIndex:
		err = target.AppendIndex(artifact, named)
	case v1.Image:
		err = target.AppendImage(artifact, named)
	default:
		err = fmt.Errorf("neither an image nor an index: %T", artifact)
	}
	if err != nil {
		return fmt.Errorf("write the layout of %s: %w", reference, err)
	}
	var files []File
	if err := fs.WalkDir(os.DirFS(folder), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(os.DirFS(folder), name)
		files = append(files, File{Path: "/" + name, Mode: 0o644, Data: data})
		return err
	}); err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() {
		if closed := out.Close(); err == nil {
			err = closed
		}
	}()
	return archive.WriteTar(out, noTime, files...)
}

func newLayer(files []File) (v1.Layer, error) {
	if len(files) == 0 {
		return nil, errors.New("layer has no files")
	}
	var content bytes.Buffer
	if err := archive.WriteTar(&content, noTime, files...); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
