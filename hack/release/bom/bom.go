// Package bom lists the modules that programs were built from, as a software bill of materials in the format of CycloneDX. It reads them from
// the programs themselves. Don't run commands here, and don't read a clock.
package bom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// Release is what the programs are part of.
type Release struct {
	Name, Module, Version string
	Created               time.Time
}

// Program is a program of a release.
type Program struct {
	// Name is the name of the program, and Platform what it was built for, such as linux/amd64.
	Name, Platform string
	Binary         []byte
}

// New returns the bill of materials as JSON. Each program depends on the modules that were compiled into it, and on Go's standard library.
func New(release Release, programs []Program) ([]byte, error) {
	whole := purl(release.Module, release.Version)
	list := cyclonedx.NewBOM()
	list.Metadata = &cyclonedx.Metadata{
		Timestamp: release.Created.UTC().Format(time.RFC3339),
		Component: &cyclonedx.Component{
			BOMRef: whole, Type: cyclonedx.ComponentTypeApplication, Name: release.Name, Version: release.Version, PackageURL: whole,
		},
	}
	modules := map[string]cyclonedx.Component{}
	var applications []cyclonedx.Component
	var dependencies []cyclonedx.Dependency
	parts := make([]string, 0, len(programs))
	for _, program := range programs {
		used, err := modulesOf(program)
		if err != nil {
			return nil, err
		}
		application := program.component(release.Version)
		refs := make([]string, 0, len(used))
		for _, module := range used {
			modules[module.BOMRef] = module
			refs = append(refs, module.BOMRef)
		}
		applications = append(applications, application)
		parts = append(parts, application.BOMRef)
		dependencies = append(dependencies, cyclonedx.Dependency{Ref: application.BOMRef, Dependencies: &refs})
	}
	dependencies = append(dependencies, cyclonedx.Dependency{Ref: whole, Dependencies: &parts})
	components := applications
	for _, ref := range slices.Sorted(maps.Keys(modules)) {
		components = append(components, modules[ref])
	}
	list.Components, list.Dependencies = &components, &dependencies
	var out bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(list); err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

func (p Program) component(version string) cyclonedx.Component {
	sum := sha256.Sum256(p.Binary)
	return cyclonedx.Component{
		BOMRef: p.Name + "/" + p.Platform, Type: cyclonedx.ComponentTypeApplication, Name: p.Name, Version: version,
		Hashes:     &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Properties: &[]cyclonedx.Property{{Name: "platform", Value: p.Platform}},
	}
}

// modulesOf returns the modules of a program, sorted by their references.
func modulesOf(p Program) ([]cyclonedx.Component, error) {
	info, err := buildinfo.Read(bytes.NewReader(p.Binary))
	if err != nil {
		return nil, fmt.Errorf("read the modules of %s for %s: %w", p.Name, p.Platform, err)
	}
	// The name by which databases of vulnerabilities list the standard library.
	found := []cyclonedx.Component{library("stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		found = append(found, library(module.Path, module.Version))
	}
	slices.SortFunc(found, func(a, b cyclonedx.Component) int { return cmp.Compare(a.BOMRef, b.BOMRef) })
	return found, nil
}

func library(path, version string) cyclonedx.Component {
	ref := purl(path, version)
	return cyclonedx.Component{BOMRef: ref, Type: cyclonedx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: ref}
}

// purl returns the package URL of a Go module: https://github.com/package-url/purl-spec. Versions may have a plus sign, which must be escaped.
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}
