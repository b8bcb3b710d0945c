package token

import (
	"hash/crc32"
	"strings"
	"testing"
)

func FuzzChecksum(f *testing.F) {
	for length := range 3 * step {
		f.Add(strings.Repeat("\xff", length))
		f.Add("ak_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:length])
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, want := checksumOf(text), crc32.ChecksumIEEE([]byte(text)); got != want {
			t.Errorf("the checksum is %08x, want %08x", got, want)
		}
	})
}
