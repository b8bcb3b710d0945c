package token

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

const digestAlgorithm = "sha256:"

// Digest is SHA-256 of a token. It is no secret: nobody can find the token by it.
type Digest [sha256.Size]byte

// ErrNoDigest is the answer to a text that String never writes.
var ErrNoDigest = errors.New(`no digest: want "sha256:" and 64 lower-case hex digits`)

// String is the form of a digest in an ApiKey's status: "sha256:" and 64 hex digits.
func (d Digest) String() string { return digestAlgorithm + hex.EncodeToString(d[:]) }

// ParseDigest reads what String writes. The only error is ErrNoDigest.
func ParseDigest(text string) (Digest, error) {
	digits, found := strings.CutPrefix(text, digestAlgorithm)
	var d Digest
	if !found || len(digits) != hex.EncodedLen(len(d)) || strings.ToLower(digits) != digits {
		return Digest{}, ErrNoDigest
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return Digest{}, ErrNoDigest
	}
	return d, nil
}

func digestOf(text string) Digest {
	var buffer [MaxLength]byte
	n := copy(buffer[:], text)
	return sha256.Sum256(buffer[:n])
}
