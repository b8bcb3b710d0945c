// Package version says which build this is. The linker sets its variables; nothing else belongs here.
package version

import (
	"runtime/debug"
	"strings"
)

// Set by -ldflags "-X github.com/apikey-operator/apikey-operator/internal/version.version=v1.2.3", and likewise revision.
var (
	version  = "devel"
	revision string
)

const (
	// modified is the suffix of a revision that was built from modified sources.
	modified = "-modified"
	// short is the number of digits of the commit that are shown.
	short = 12
)

// String returns the version and, if known, the commit, such as v1.2.3+0123456789ab. It ends in -modified if the sources
// differed from the commit.
func String() string {
	if revision == "" {
		return join(version, stamped())
	}
	return join(version, revision)
}

func join(version, revision string) string {
	if revision == "" {
		return version
	}
	commit, isModified := strings.CutSuffix(revision, modified)
	if len(commit) > short {
		commit = commit[:short]
	}
	if isModified {
		commit += modified
	}
	return version + "+" + commit
}

// stamped returns the revision that go build recorded.
func stamped() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	settings := make(map[string]string, len(info.Settings))
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	commit := settings["vcs.revision"]
	if commit != "" && settings["vcs.modified"] == "true" {
		commit += modified
	}
	return commit
}
