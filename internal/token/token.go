// Package token mints, parses and hashes tokens. No other package may do so, and only [Token.Reveal] returns a token in
// plain text.
package token

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
)

// A token is <prefix>_<secret><checksum>. The format follows the one that GitHub published for its tokens: base62 can be selected
// with a double click and needs no quoting in URLs and shells, and the checksum lets secret scanners recognize tokens offline.
const (
	alphabet       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretBytes    = 32
	secretDigits   = 43 // the least n for which 62^n > 2^256
	checksumDigits = 6  // the least n for which 62^n > 2^32
	hintDigits     = 4

	minPrefix = 2
	maxPrefix = 16
	// MaxLength is the length of the longest token in bytes.
	MaxLength = maxPrefix + 1 + secretDigits + checksumDigits
)

// values maps each digit of the alphabet to its value, and every other byte to notADigit.
var values = func() (table [256]byte) {
	for i := range table {
		table[i] = notADigit
	}
	for i := range len(alphabet) {
		table[alphabet[i]] = byte(i)
	}
	return table
}()

// notADigit has a bit that no value of a digit has.
const notADigit = 0x80

// DefaultPrefix is the default prefix of tokens.
const DefaultPrefix = "ak"

// ErrMalformed is returned for every text that is not a token. It reveals nothing about the text.
var ErrMalformed = errors.New("malformed token")

// Token is a token in plain text. Every way to print, log or marshal it, except Reveal, yields "[redacted]". The text is
// behind a pointer because fmt and slog print unexported fields without calling String methods. The zero value holds no
// token.
type Token struct {
	text *string
}

// ValidatePrefix returns an error unless prefix is a valid token prefix: 2 to 16 lower-case letters and digits that start
// with a letter.
func ValidatePrefix(prefix string) error {
	if !isPrefix(prefix) {
		return fmt.Errorf("invalid token prefix %q: must be 2 to 16 lower-case letters and digits that start with a letter, such as %q",
			prefix, DefaultPrefix)
	}
	return nil
}

// Mint makes a random token with 256 bits of entropy from the operating system. The prefix must be valid, see
// [ValidatePrefix].
func Mint(prefix string) Token {
	var secret [secretBytes]byte
	// Read never fails: since Go 1.24, the process crashes instead.
	_, _ = rand.Read(secret[:])
	return compose(prefix, secret)
}

func compose(prefix string, secret [secretBytes]byte) Token {
	body := prefix + "_" + base62(new(big.Int).SetBytes(secret[:]), secretDigits)
	text := body + checksum(body)
	return Token{text: &text}
}

// Parse parses a token with any valid prefix and verifies its checksum. The only error is [ErrMalformed].
func Parse(text string) (Token, error) {
	if !isToken(text) {
		return Token{}, ErrMalformed
	}
	return Token{text: &text}, nil
}

// Check verifies that text is a token, as [Parse] does, and returns its prefix and digest. It neither retains text nor
// allocates: verifiers call it for every request.
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
	// No early end: a token that is right has to be read in full anyway, and this way costs no branch for each digit.
	seen := values[rest[len(rest)-1]]
	for digits := rest; len(digits) >= step; digits = digits[step:] {
		seen |= values[digits[0]] | values[digits[1]] | values[digits[2]] | values[digits[3]] |
			values[digits[4]] | values[digits[5]] | values[digits[6]] | values[digits[7]]
	}
	if seen >= notADigit {
		return false
	}
	var want uint64
	for _, digit := range []byte(rest[secretDigits:]) {
		want = want*uint64(len(alphabet)) + uint64(values[digit])
	}
	return want == uint64(checksumOf(text[:len(text)-checksumDigits]))
}

// isPrefix reports whether text is a valid prefix. See [ValidatePrefix].
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

// IsZero reports whether t holds no token.
func (t Token) IsZero() bool { return t.text == nil }

// Reveal returns the token in plain text. It may be written only to the token Secret. For the zero Token it returns "".
func (t Token) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// Digest returns the SHA-256 of the whole token. A fast, unsalted hash is sufficient, because nobody can search 256 random
// bits. It also makes the lookup of a token a single step.
func (t Token) Digest() Digest { return digestOf(t.Reveal()) }

// Hint returns the prefix and the first four digits of the token. That helps people to tell keys apart, and leaves 232 bits
// unknown.
func (t Token) Hint() string {
	text := t.Reveal()
	return text[:min(len(text), strings.IndexByte(text, '_')+1+hintDigits)]
}

// Redact replaces the token in text, which comes from elsewhere. It finds the token in plain text, in base64 (the encoding
// of a Secret's data) and in hex.
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

// Format hides the token from all verbs of fmt, including those that don't call String.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the token from JSON, YAML and every other text encoding.
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the token from slog.
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

func checksum(body string) string {
	return base62(new(big.Int).SetUint64(uint64(checksumOf(body))), checksumDigits)
}

// base62 formats n in the alphabet of tokens, padded with zeros to width. [big.Int.Text] has a base 62 with lower-case
// letters first; translating its digits is simpler than dividing.
func base62(n *big.Int, width int) string {
	const bigAlphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits := []byte(strings.Repeat("0", width) + n.Text(62))
	digits = digits[len(digits)-width:]
	for i, d := range digits {
		digits[i] = alphabet[strings.IndexByte(bigAlphabet, d)]
	}
	return string(digits)
}
