package verify

import (
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

type form uint8

const (
	absent form = iota
	malformed
	wellFormed // has the format and the checksum of a token
)

// Credential is the API key of a request. It holds the digest and never the text of the token, so that
// logging a request can't reveal a token.
type Credential struct {
	digest token.Digest
	form   form
	// The headers that hold the token. They are removed before the request is forwarded.
	inAuthorization, inAPIKey bool
}

// Unreadable returns the credential of a request that can't be read. It is refused as [Malformed].
func Unreadable() Credential { return Credential{form: malformed} }

// In reports whether a header of the request holds the credential. The case of the name doesn't matter.
func (c Credential) In(header string) bool {
	return c.inAuthorization && strings.EqualFold(header, HeaderAuthorization) || c.inAPIKey && strings.EqualFold(header, HeaderAPIKey)
}

// Headers that can carry an API key.
const (
	HeaderAuthorization = "Authorization"
	HeaderAPIKey        = "X-Api-Key" //nolint:gosec // a header name
)

// Reader reads credentials. A token must have one of Prefixes.
type Reader struct {
	Prefixes []string
}

// Token reads a text that must be a token and nothing else. An empty text has no credential.
func (r Reader) Token(text string) Credential {
	if text == "" {
		return Credential{}
	}
	prefix, digest, err := token.Check(text)
	if err != nil || !slices.Contains(r.Prefixes, prefix) {
		return Credential{form: malformed}
	}
	return Credential{digest: digest, form: wellFormed}
}

// Headers reads the values of a request's Authorization and X-API-Key headers.
//
// The credential is the bearer token of Authorization (RFC 6750), or the value of X-API-Key. Both headers may
// hold the same token. Two different tokens, and a header that is repeated, are malformed. If X-API-Key holds
// a token, Authorization may hold the application's own bearer token: it is ignored unless it has the prefix
// of an API key. An empty value and a scheme other than Bearer do not count as a credential.
func (r Reader) Headers(authorization, apiKey []string) Credential {
	if len(authorization) > 1 || len(apiKey) > 1 {
		return Credential{form: malformed}
	}
	var bearer, direct string
	if len(authorization) == 1 {
		if bearer = bearerToken(authorization[0]); bearer == "" && r.hidesToken(authorization[0]) {
			return Credential{form: malformed}
		}
	}
	if len(apiKey) == 1 {
		direct = trim(apiKey[0])
	}
	switch {
	case direct == "":
		c := r.Token(bearer)
		c.inAuthorization = bearer != ""
		return c
	case bearer == "" || !r.isOurs(bearer):
		c := r.Token(direct)
		c.inAPIKey = true
		return c
	case bearer != direct:
		return Credential{form: malformed}
	default:
		c := r.Token(direct)
		c.inAuthorization, c.inAPIKey = true, true
		return c
	}
}

// isOurs reports whether a bearer token is meant to be an API key. It also returns true for a value with a
// comma. Bearer tokens never have one, but proxies join repeated headers with commas, so the value could hold
// anything.
func (r Reader) isOurs(bearer string) bool {
	prefix, _, found := strings.Cut(bearer, "_")
	return found && slices.Contains(r.Prefixes, prefix) || strings.Contains(bearer, ",")
}

const bearerScheme = "bearer"

// bearerToken returns the text after the scheme Bearer, or an empty string for another scheme. Schemes are
// case-insensitive (RFC 9110, section 11.1).
func bearerToken(authorization string) string {
	authorization = trim(authorization)
	if len(authorization) <= len(bearerScheme) || !strings.EqualFold(authorization[:len(bearerScheme)], bearerScheme) {
		return ""
	}
	rest := authorization[len(bearerScheme):]
	if bearer := trim(rest); bearer != rest {
		return bearer
	}
	return "" // another scheme, which starts with "Bearer"
}

// hidesToken reports whether an Authorization header without the scheme Bearer nevertheless holds a token: a
// bearer token in a repeated header that a proxy joined, or an API key without a scheme. It would reach the
// upstream unnoticed.
func (r Reader) hidesToken(authorization string) bool {
	for part := range strings.SplitSeq(authorization, ",") {
		if bearerToken(part) != "" || r.isOurs(trim(part)) {
			return true
		}
	}
	return false
}

// trim removes optional whitespace (RFC 9110, section 5.6.3). strings.Trim would first make a set of the two characters, at each
// call.
func trim(value string) string {
	for value != "" && isSpace(value[0]) {
		value = value[1:]
	}
	for value != "" && isSpace(value[len(value)-1]) {
		value = value[:len(value)-1]
	}
	return value
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }
