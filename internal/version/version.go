// Package version says which build this is; the linker sets it.
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
	// What a revision ends with where the sources differed from the commit.
	modified = "-modified"
	// As much of a commit's digest as people read.
	short = 12
)

// String is the version and, where the build knows it, the commit that it was built from, such as v1.2.3+0123456789ab, with -modified at
// the end where the sources differed from it.
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

// stamped is the revision that go build has noted by itself.
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
