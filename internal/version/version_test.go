package version

import "testing"

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
