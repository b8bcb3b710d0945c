package token

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

const digestAlgorithm = "sha256:"

// Digest is the SHA-256 of a token. It is not secret: the token can't be derived from it.
type Digest [sha256.Size]byte

// ErrNoDigest is returned for text that [Digest.String] does not produce.
var ErrNoDigest = errors.New(`invalid digest: must be "sha256:" followed by 64 lower-case hex digits`)

// String formats the digest as in the status of an ApiKey: "sha256:" followed by 64 hex digits.
func (d Digest) String() string { return digestAlgorithm + hex.EncodeToString(d[:]) }

// ParseDigest parses the output of [Digest.String]. The only error is [ErrNoDigest].
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
