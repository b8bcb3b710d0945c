// Package version says which build this is. The linker sets its variables; nothing else belongs here.
package version

import (
	"runtime/debug"
	"strings"
)

// Set by -ldflags "-X github.com/apikey-operator/apikey-operator/internal/version.version=v1.2.3", and likewise revision.
var (
	version  = unset
	revision string
)

const (
	// unset is the version of a build that has none.
	unset = "devel"
	// modified is the suffix of a revision that was built from modified sources.
	modified = "-modified"
	// short is the number of digits of the commit that are shown.
	short = 12
)

// String returns the version and, if known, the commit, such as v1.2.3+0123456789ab. It ends in -modified if the sources
// differed from the commit.
func String() string {
	if info, ok := debug.ReadBuildInfo(); ok && revision == "" {
		return stamped(version, info)
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

// stamped adds to a version what Go recorded: of a build in a clone the commit, and of `go install PACKAGE@VERSION` the version.
func stamped(version string, info *debug.BuildInfo) string {
	settings := make(map[string]string, len(info.Settings))
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	commit := settings["vcs.revision"]
	if commit == "" && version == unset && strings.HasPrefix(info.Main.Version, "v") {
		return info.Main.Version
	}
	if commit != "" && settings["vcs.modified"] == "true" {
		commit += modified
	}
	return join(version, commit)
}
