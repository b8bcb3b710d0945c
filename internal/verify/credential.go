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
	proven // to have the form and the checksum of a token
)

// Credential is what a request proves itself by. It holds the digest and never the text, so that no request can show a token.
type Credential struct {
	digest token.Digest
	form   form
	// Where the token stood, for those who must take it away before the request goes on.
	inAuthorization, inAPIKey bool
}

// Unreadable is the credential of a request that could not be read: it is refused as Malformed.
func Unreadable() Credential { return Credential{form: malformed} }

// In tells whether a header of the request, by its name in whatever case, holds the credential.
func (c Credential) In(header string) bool {
	return c.inAuthorization && strings.EqualFold(header, HeaderAuthorization) || c.inAPIKey && strings.EqualFold(header, HeaderAPIKey)
}

// The names of the headers that a credential stands in.
const (
	HeaderAuthorization = "Authorization"
	HeaderAPIKey        = "X-Api-Key" //nolint:gosec // the name of a header
)

// Reader reads credentials. Prefixes are those of the tokens that it takes for its own.
type Reader struct {
	Prefixes []string
}

// Token reads a text that is a token and nothing else.
func (r Reader) Token(text string) Credential {
	if text == "" {
		return Credential{}
	}
	prefix, digest, err := token.Check(text)
	if err != nil || !slices.Contains(r.Prefixes, prefix) {
		return Credential{form: malformed}
	}
	return Credential{digest: digest, form: proven}
}

// Headers reads the values of a request's Authorization and X-API-Key headers, each in its order. The credential is the
// token of Authorization's scheme Bearer (RFC 6750), or X-API-Key. Both may hold the same one; two different ones, or a
// header that is repeated, are malformed. An application may carry a bearer token of its own beside X-API-Key: it is left
// alone unless it has the prefix of an API key. Another scheme than Bearer, or an empty value, is no credential.
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

// isOurs tells whether a bearer token is meant to be an API key. A comma, which no bearer token has, is how proxies join a
// repeated header: there is no telling what else is in it.
func (r Reader) isOurs(bearer string) bool {
	prefix, _, found := strings.Cut(bearer, "_")
	return found && slices.Contains(r.Prefixes, prefix) || strings.Contains(bearer, ",")
}

const bearerScheme = "bearer"

// bearerToken is what follows the scheme Bearer, which is written in any case (RFC 9110, section 11.1); "" for another scheme.
func bearerToken(authorization string) string {
	authorization = trim(authorization)
	if len(authorization) <= len(bearerScheme) || !strings.EqualFold(authorization[:len(bearerScheme)], bearerScheme) {
		return ""
	}
	rest := authorization[len(bearerScheme):]
	if bearer := trim(rest); bearer != rest {
		return bearer
	}
	return "" // another scheme, whose name starts alike
}

// hidesToken tells whether an Authorization header of another scheme holds a bearer token all the same, since a proxy has joined a
// repeated header, or one of ours without a scheme. It would go on to the upstream unseen.
func (r Reader) hidesToken(authorization string) bool {
	for part := range strings.SplitSeq(authorization, ",") {
		if bearerToken(part) != "" || r.isOurs(trim(part)) {
			return true
		}
	}
	return false
}

// trim removes optional white space as HTTP knows it (RFC 9110, section 5.6.3).
func trim(value string) string { return strings.Trim(value, " \t") }
