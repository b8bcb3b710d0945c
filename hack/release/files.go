package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/hack/release/archive"
	"github.com/apikey-operator/apikey-operator/hack/release/bom"
	"github.com/apikey-operator/apikey-operator/hack/release/krew"
)

// Names of files of a release.
const (
	sumsFile = "SHA256SUMS"
	bomFile  = "sbom.cdx.json"
)

// writeAll writes all files of a release to a folder of its version, which must not be there yet.
func (r *release) writeAll(ctx context.Context) error {
	if !r.semantic() {
		return fmt.Errorf("invalid -version=%s: %w", r.version, errNotSemantic)
	}
	folder := filepath.Join(r.out, r.version)
	if _, err := os.Stat(folder); err == nil {
		return fmt.Errorf("%s exists: remove it first, so that the release has no file of an earlier build", folder)
	}
	if strings.HasSuffix(r.revision, "-modified") {
		fmt.Fprintln(os.Stderr, "release: the sources differ from the commit; the files say so")
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	manifests, err := output(ctx, []string{"VERSION=" + r.version, "REGISTRY=" + r.registry}, "hack/installer", folder)
	if err != nil {
		return err
	}
	fmt.Println(manifests)
	if err := r.writeArtifacts(ctx, folder); err != nil {
		return err
	}
	if err := r.writeArchives(ctx, folder); err != nil {
		return err
	}
	if err := r.writeBOM(folder); err != nil {
		return err
	}
	return r.writeSums(folder)
}

// writeArtifacts writes the images, and the chart in both of its forms.
func (r *release) writeArtifacts(ctx context.Context, folder string) error {
	artifacts, err := r.images(ctx)
	if err != nil {
		return err
	}
	packed, err := r.chart(ctx)
	if err != nil {
		return err
	}
	chart, err := r.chartArtifact(packed)
	if err != nil {
		return err
	}
	for _, artifact := range append(artifacts, chart) {
		file := filepath.Join(folder, artifact.file)
		if err := artifact.writeTo(file); err != nil {
			return err
		}
		if err := artifact.report(file); err != nil {
			return err
		}
	}
	return write(folder, chartName+"-"+r.chartVersion()+".tgz", packed.Archive)
}

// writeArchives writes the archives of the plugin, and the manifest for krew that names them.
func (r *release) writeArchives(ctx context.Context, folder string) error {
	license, err := license()
	if err != nil {
		return err
	}
	listed := krew.Release{Version: r.version, URL: r.url}
	for _, platform := range r.archives {
		binary, err := r.compile(ctx, plugin, platform)
		if err != nil {
			return err
		}
		program, pack, extension := plugin, archive.TarGz, ".tar.gz"
		if platform.OS == "windows" {
			program, pack, extension = plugin+".exe", archive.Zip, ".zip"
		}
		packed, err := pack(r.created,
			archive.File{Path: "/" + program, Mode: 0o755, Data: binary},
			archive.File{Path: "/LICENSE", Mode: 0o644, Data: license},
		)
		if err != nil {
			return err
		}
		file := fmt.Sprintf("%s_%s_%s_%s%s", plugin, r.version, platform.OS, platform.Architecture, extension)
		if err := write(folder, file, packed); err != nil {
			return err
		}
		listed.Archives = append(listed.Archives, krew.Archive{
			OS: platform.OS, Architecture: platform.Architecture, File: file, Binary: program, SHA256: sum(packed),
		})
	}
	manifest, err := krew.Manifest(listed)
	if err != nil {
		return err
	}
	return write(folder, krew.File, manifest)
}

// writeBOM writes the bill of materials of all programs that were compiled.
func (r *release) writeBOM(folder string) error {
	programs := make([]bom.Program, 0, len(r.compiled))
	for key, binary := range r.compiled {
		programs = append(programs, bom.Program{Name: key.program, Platform: key.platform, Binary: binary})
	}
	slices.SortFunc(programs, func(a, b bom.Program) int { return strings.Compare(a.Name+"/"+a.Platform, b.Name+"/"+b.Platform) })
	text, err := bom.New(bom.Release{Name: "apikey-operator", Module: module, Version: r.version, Created: r.created}, programs)
	if err != nil {
		return err
	}
	return write(folder, bomFile, text)
}

// writeSums writes the checksums of all files, as sha256sum does, and their signature if there is a key.
func (r *release) writeSums(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, entry := range entries { // sorted by name
		data, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			return err
		}
		sums.WriteString(sum(data) + "  " + entry.Name() + "\n")
	}
	if err := write(folder, sumsFile, []byte(sums.String())); err != nil || r.key == nil {
		return err
	}
	signature, err := r.key.Blob([]byte(sums.String()))
	if err != nil {
		return err
	}
	return write(folder, sumsFile+".sig", []byte(signature))
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

// write writes a file that everybody may read, and prints its name.
func write(folder, name string, data []byte) error {
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}
