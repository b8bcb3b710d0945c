package arrows

import (
	"slices"
	"testing"
)

// notProtocols are the packages in internal/serve that do not answer a protocol.
var notProtocols = []string{"internal/serve", "internal/serve/intake"}

// Each protocol must be wired into the verifier, and its tests must run the cases of internal/verify/script, so that it decides like the
// others.
func TestEveryProtocolIsWiredAndRunsTheScript(t *testing.T) {
	wired := list(t, "Imports")["cmd/apikey-verifier"]
	inside, outside := list(t, "TestImports"), list(t, "XTestImports")
	checked := 0
	for name := range inside {
		if !isBelow(name, "internal/serve") || slices.Contains(notProtocols, name) {
			continue
		}
		checked++
		if !slices.Contains(wired, module+name) {
			t.Errorf("cmd/apikey-verifier does not import %s: wire it in run.go, or add it to notProtocols in this file", name)
		}
		if script := module + "internal/verify/script"; !slices.Contains(inside[name], script) && !slices.Contains(outside[name], script) {
			t.Errorf("the tests of %s do not import internal/verify/script: call script.Run, as the other protocols do", name)
		}
	}
	if checked < 4 {
		t.Errorf("found %d protocols, want at least 4", checked)
	}
}
