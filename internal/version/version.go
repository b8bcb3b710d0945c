// Package version says which build this is; the linker sets it.
package version

import (
	"runtime/debug"
)

// version is set by -ldflags "-X github.com/apikey-operator/apikey-operator/internal/version.version=v1.2.3".
var version = "devel"

// String is the version and, where the build knows it, the revision that it was built from.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return version + "+" + setting.Value[:12]
		}
	}
	return version
}
