// Package token is the only place that mints, parses or hashes a credential; one method, Token.Reveal, shows it.
package token

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/big"
	"strings"
)

// A token is <prefix>_<secret><checksum>. The alphabet, the widths and the order follow the format that GitHub
// published for its own tokens: base62 survives a double click, a URL and a shell, and the checksum lets a secret scanner
// tell a token from a look-alike without asking anybody.
const (
	alphabet       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretBytes    = 32
	secretDigits   = 43 // the least n for which 62^n > 2^256
	checksumDigits = 6  // the least n for which 62^n > 2^32
	hintDigits     = 4

	minPrefix = 2
	maxPrefix = 16
	// MaxLength is that of the longest token, in bytes.
	MaxLength = maxPrefix + 1 + secretDigits + checksumDigits
)

// values are the digits' values by their byte, and notADigit for every other byte.
var values = func() (table [256]byte) {
	for i := range table {
		table[i] = notADigit
	}
	for i := range len(alphabet) {
		table[alphabet[i]] = byte(i)
	}
	return table
}()

const notADigit = 0xff

// DefaultPrefix is the prefix of a token unless the operator is told otherwise.
const DefaultPrefix = "ak"

// ErrMalformed is the one answer to whatever is no token: it tells nothing of what was given.
var ErrMalformed = errors.New("malformed token")

// Token is a credential in clear. Printed, logged or marshalled by any means but Reveal it says "[redacted]": the text
// is behind a pointer, since fmt and slog reach through unexported fields past every String method.
// The zero value is no token.
type Token struct {
	text *string
}

// ValidatePrefix returns an error that says what is wrong with a token prefix. A prefix is 2 to 16 lower-case
// letters and digits, the first a letter.
func ValidatePrefix(prefix string) error {
	if !isPrefix(prefix) {
		return fmt.Errorf("%q is no token prefix: want 2 to 16 lower-case letters and digits, the first a letter, such as %q",
			prefix, DefaultPrefix)
	}
	return nil
}

// Mint makes a new token of 256 bits from the operating system's random source. The prefix must be one that
// ValidatePrefix accepts.
func Mint(prefix string) Token {
	var secret [secretBytes]byte
	// Never fails and never returns short: since Go 1.24 the process dies instead.
	_, _ = rand.Read(secret[:])
	return compose(prefix, secret)
}

func compose(prefix string, secret [secretBytes]byte) Token {
	body := prefix + "_" + base62(new(big.Int).SetBytes(secret[:]), secretDigits)
	text := body + checksum(body)
	return Token{text: &text}
}

// Parse reads a token, of any prefix that ValidatePrefix accepts, and proves its checksum. The only error is
// ErrMalformed.
func Parse(text string) (Token, error) {
	if !isToken(text) {
		return Token{}, ErrMalformed
	}
	return Token{text: &text}, nil
}

// Check proves a text to be a token, as Parse does, and returns its prefix and its digest. It keeps nothing of the text and
// allocates nothing: a verifier does this for every request.
func Check(text string) (prefix string, digest Digest, err error) {
	if !isToken(text) {
		return "", Digest{}, ErrMalformed
	}
	return text[:strings.IndexByte(text, '_')], digestOf(text), nil
}

func isToken(text string) bool {
	if len(text) > MaxLength {
		return false
	}
	prefix, rest, found := strings.Cut(text, "_")
	if !found || len(rest) != secretDigits+checksumDigits || !isPrefix(prefix) {
		return false
	}
	for i := range len(rest) {
		if values[rest[i]] == notADigit {
			return false
		}
	}
	var want uint64
	for _, digit := range []byte(rest[secretDigits:]) {
		want = want*uint64(len(alphabet)) + uint64(values[digit])
	}
	return want == uint64(checksumOf(text[:len(text)-checksumDigits]))
}

// isPrefix is ValidatePrefix's grammar.
func isPrefix(text string) bool {
	if len(text) < minPrefix || len(text) > maxPrefix || text[0] < 'a' {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// IsZero tells whether there is no token.
func (t Token) IsZero() bool { return t.text == nil }

// Reveal is the token in clear. Its one lawful destination is the Secret. The zero Token reveals "".
func (t Token) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// Digest is SHA-256 of the whole token. A fast, unsalted hash is right for 256 random bits, which nobody can search, and it
// makes the look-up one step.
func (t Token) Digest() Digest { return digestOf(t.Reveal()) }

// Hint is the prefix and the first four digits, enough to recognise a key by and 232 bits short of the token.
func (t Token) Hint() string {
	text := t.Reveal()
	return text[:min(len(text), strings.IndexByte(text, '_')+1+hintDigits)]
}

// Redact replaces the token in a text that came from elsewhere, in clear, in base64 (the form of a Secret's data) and in hex.
func (t Token) Redact(text string) string {
	if t.text == nil {
		return text
	}
	clear := []byte(*t.text)
	return strings.NewReplacer(
		*t.text, redacted,
		base64.StdEncoding.EncodeToString(clear), redacted,
		hex.EncodeToString(clear), redacted,
	).Replace(text)
}

const redacted = "[redacted]"

// String hides the token from fmt.
func (t Token) String() string { return redacted }

// GoString hides the token from %#v.
func (t Token) GoString() string { return redacted }

// Format hides the token from every verb, those that String does not serve included.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the token from JSON, YAML and every other encoder of text.
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the token from slog.
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

func checksum(body string) string {
	return base62(new(big.Int).SetUint64(uint64(checksumOf(body))), checksumDigits)
}

// checksumOf is crc32.ChecksumIEEE, without a copy of the credential on the heap.
func checksumOf(text string) uint32 {
	crc := ^uint32(0)
	for i := range len(text) {
		crc = crc32.IEEETable[byte(crc&0xff)^text[i]] ^ crc>>8
	}
	return ^crc
}

// base62 writes n in the token's alphabet, padded with zeros to a width. math/big has a base 62, with the lower-case
// letters first; translating its digits is shorter and surer than dividing.
func base62(n *big.Int, width int) string {
	const bigAlphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits := []byte(strings.Repeat("0", width) + n.Text(62))
	digits = digits[len(digits)-width:]
	for i, d := range digits {
		digits[i] = alphabet[strings.IndexByte(bigAlphabet, d)]
	}
	return string(digits)
}
