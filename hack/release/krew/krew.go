// Package krew writes the manifest by which krew, the package manager of kubectl plugins, installs kubectl-apikey.
package krew

import (
	"bytes"
	_ "embed"
	"text/template"
)

//go:embed apikey.yaml.tmpl
var text string

var manifest = template.Must(template.New("manifest").Option("missingkey=error").Parse(text))

// File is the name of the manifest. krew takes the name of the plugin from it.
const File = "apikey.yaml"

// Release is a release of the plugin.
type Release struct {
	// Version must be a semantic version that starts with v.
	Version string
	// URL is the folder from which users download the archives. It has no slash at its end.
	URL      string
	Archives []Archive
}

// Archive is the plugin for one platform.
type Archive struct {
	OS, Architecture string
	// File is the name of the archive, and Binary the one of the program in it.
	File, Binary string
	// SHA256 is the checksum of the archive, in hexadecimal digits.
	SHA256 string
}

// Manifest returns the manifest of a release.
func Manifest(r Release) ([]byte, error) {
	var out bytes.Buffer
	err := manifest.Execute(&out, r)
	return out.Bytes(), err
}
