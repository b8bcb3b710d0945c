package harness

import (
	"encoding/base64"
	"encoding/hex"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

// TestWitnessFindsATokenInEveryForm shows that a witness that finds no leaks would have found one.
func TestWitnessFindsATokenInEveryForm(t *testing.T) {
	minted := token.Mint("ak")
	text := minted.Reveal()
	needles := needles(map[string]bool{text: true})
	for name, leak := range map[string]string{
		"clear":           "msg=" + text + " end",
		"base64, alone":   base64.StdEncoding.EncodeToString([]byte(text)),
		"base64, shift 1": base64.StdEncoding.EncodeToString([]byte("x" + text + "y")),
		"base64, shift 2": base64.StdEncoding.EncodeToString([]byte("xx" + text + "y")),
		"base64url":       base64.URLEncoding.EncodeToString([]byte(text)),
		"hex":             hex.EncodeToString([]byte(text)),
	} {
		if count([]byte("some log "+leak+"\n"), needles) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
	for name, innocent := range map[string]string{
		"hint": minted.Hint(), "digest": minted.Digest().String(), "another": token.Mint("ak").Reveal(),
	} {
		if count([]byte("some log "+innocent+"\n"), needles) != 0 {
			t.Errorf("%s: found", name)
		}
	}
}
