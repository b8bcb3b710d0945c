// Package chart packs a Helm chart with the version of a release: as an archive, and as an artifact for a registry. The same files always
// result in the same bytes. Don't run commands here, and don't read a clock.
package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/hack/release/archive"
)

// The media types of charts in registries: https://helm.sh/docs/topics/registries/#helm-chart-manifest
const (
	configType  types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	contentType types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// Package is a packed chart.
type Package struct {
	// Archive is what `helm package` would write.
	Archive []byte
	// metadata is Chart.yaml in JSON.
	metadata []byte
}

// New packs the files of a chart, whose paths are those in the archive. It sets the version of the chart, and the version of the app, which is
// the tag of the images.
func New(files []archive.File, version, appVersion string, modified time.Time) (Package, error) {
	p := Package{}
	for i := range files {
		if path.Base(files[i].Path) != "Chart.yaml" {
			continue
		}
		text := files[i].Data
		for field, value := range map[string]string{"version": version, "appVersion": appVersion} {
			line := regexp.MustCompile(`(?m)^` + field + `: .*$`)
			if found := len(line.FindAll(text, -1)); found != 1 {
				return p, fmt.Errorf("%s has %d lines for %s, want one", files[i].Path, found, field)
			}
			text = line.ReplaceAllLiteral(text, []byte(field+": "+value))
		}
		files[i].Data = text
		var err error
		if p.metadata, err = yaml.YAMLToJSON(text); err != nil {
			return p, fmt.Errorf("%s: %w", files[i].Path, err)
		}
	}
	if p.metadata == nil {
		return p, fmt.Errorf("none of the %d files of the chart is Chart.yaml", len(files))
	}
	var err error
	p.Archive, err = archive.TarGz(modified, files...)
	return p, err
}

// Artifact returns the chart as an image, as a registry stores it.
func (p Package) Artifact(annotations map[string]string) (v1.Image, error) {
	layer := static.NewLayer(p.Archive, contentType)
	content, err := partial.Descriptor(layer)
	if err != nil {
		return nil, err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(p.metadata))
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: annotations,
		Config: v1.Descriptor{MediaType: configType, Size: size, Digest: digest},
		Layers: []v1.Descriptor{*content},
	})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(artifact{config: p.metadata, manifest: manifest, layer: layer})
}

// artifact is an image with one layer, whose configuration is not that of a container.
type artifact struct {
	config, manifest []byte
	layer            v1.Layer
}

func (a artifact) RawConfigFile() ([]byte, error)      { return a.config, nil }
func (a artifact) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a artifact) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	if own, err := a.layer.Digest(); err != nil || own != digest {
		return nil, fmt.Errorf("the chart has no layer %s: %w", digest, err)
	}
	return a.layer, nil
}
