package version

import (
	"runtime/debug"
	"testing"
)

func TestJoin(t *testing.T) {
	for _, c := range []struct{ version, revision, want string }{
		{"devel", "", "devel"},
		{"v1.2.3", "a6a7d61f00112233445566778899aabbccddeeff", "v1.2.3+a6a7d61f0011"},
		{"v1.2.3", "a6a7d61f00112233445566778899aabbccddeeff-modified", "v1.2.3+a6a7d61f0011-modified"},
		{"v1.2.3", "abc", "v1.2.3+abc"},
	} {
		if got := join(c.version, c.revision); got != c.want {
			t.Errorf("join(%q, %q) is %q, not %q", c.version, c.revision, got, c.want)
		}
	}
}

func TestStamped(t *testing.T) {
	vcs := func(revision, changed string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: changed}}
	}
	for name, c := range map[string]struct {
		version, main string
		settings      []debug.BuildSetting
		want          string
	}{
		"go install at a version":        {"devel", "v1.2.3", nil, "v1.2.3"},
		"in a clone":                     {"devel", "v0.0.0-20260101000000-a6a7d61f0011", vcs("a6a7d61f00112233445566778899aabbccddeeff", "false"), "devel+a6a7d61f0011"},
		"in a clone with changes":        {"devel", "v1.2.3+dirty", vcs("a6a7d61f00112233445566778899aabbccddeeff", "true"), "devel+a6a7d61f0011-modified"},
		"in a clone, with a version":     {"v1.2.4", "v1.2.3", vcs("a6a7d61f00112233445566778899aabbccddeeff", "false"), "v1.2.4+a6a7d61f0011"},
		"without version control":        {"devel", "(devel)", nil, "devel"},
		"as a dependency of another one": {"devel", "", nil, "devel"},
	} {
		if got := stamped(c.version, &debug.BuildInfo{Main: debug.Module{Version: c.main}, Settings: c.settings}); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
