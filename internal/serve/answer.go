package serve

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Headers that carry the identity of the API key to the upstream. An answer with status 200 sets all of them
// to non-empty values: some gateways forward the client's own header if the answer leaves it empty.
const (
	HeaderNamespace = "X-Apikey-Namespace"
	HeaderName      = "X-Apikey-Name"
	HeaderUID       = "X-Apikey-Uid"
	HeaderRoles     = "X-Apikey-Roles"

	// identityPrefix is the prefix of these headers, in lower case. It is reserved for further ones.
	identityPrefix = "x-apikey-"
)

// NoRoles is the value of [HeaderRoles] if the route requires no roles. It isn't a valid role name.
const NoRoles = "-"

// IsIdentity reports whether an upstream could take a header for one of those that carry the identity. The
// case of the name doesn't matter. Dashes, underscores and dots count as equal, because some servers treat
// them so.
func IsIdentity(header string) bool {
	if len(header) < len(identityPrefix) {
		return false
	}
	for i := range len(identityPrefix) {
		c := header[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c == '_' || c == '.':
			c = '-'
		}
		if c != identityPrefix[i] {
			return false
		}
	}
	return true
}

// Withheld reports whether a request header must not be forwarded to the upstream: it holds the credential,
// or [IsIdentity] is true for it. The case of the name doesn't matter. With the zero credential, only
// [IsIdentity] counts.
func Withheld(header string, credential verify.Credential) bool {
	return credential.In(header) || IsIdentity(header)
}

// Roles returns the value of [HeaderRoles]: the roles that the route requires, or, if all is true, all roles
// of the key. The author of the route controls the size of the former. The latter can be 256 names of 253
// bytes, which is more than most proxies accept in a header.
func Roles(key *verify.Key, route verify.Route, all bool) string {
	roles := route.Roles
	if all {
		roles = key.Roles.Names()
	}
	if len(roles) == 0 {
		return NoRoles
	}
	return strings.Join(roles, ",")
}

// Answer is what a client receives for a decision, over HTTP or gRPC.
type Answer struct {
	// Status is the HTTP status.
	Status int
	// Challenge is the value of the WWW-Authenticate header. Empty means no header.
	Challenge string
	// Code is the gRPC status code. Message is its message, empty for OK.
	Code    codes.Code
	Message string
}

// realm is the challenge with its protection space (RFC 9110, section 11.5).
const realm = `Bearer realm="apikey"`

// Error codes of RFC 6750, section 3.1.
const (
	invalidToken      = "invalid_token"
	insufficientScope = "insufficient_scope"
)

// AnswerTo returns the answer for a result. It depends only on the [verify.Class] of the result. This is the
// only place that translates a class to a protocol.
func AnswerTo(result verify.Result) Answer {
	switch result.Class() {
	case verify.OK:
		return Answer{Status: http.StatusOK, Code: codes.OK}
	case verify.Unauthenticated:
		return Answer{http.StatusUnauthorized, realm, codes.Unauthenticated, "no API key in Authorization or X-API-Key"}
	case verify.InvalidToken:
		return Answer{http.StatusUnauthorized, realm + `, error="` + invalidToken + `"`, codes.Unauthenticated, invalidToken}
	case verify.Forbidden:
		return Answer{http.StatusForbidden, "", codes.PermissionDenied, "forbidden"}
	case verify.InsufficientScope:
		return Answer{http.StatusForbidden, realm + `, error="` + insufficientScope + `"`, codes.PermissionDenied, insufficientScope}
	case verify.Unavailable:
	}
	return Answer{http.StatusServiceUnavailable, "", codes.Unavailable, "API keys are not loaded or are stale; try again later"}
}

// HeaderForwardedFor is the header in which each proxy appends the address that it was called from.
const HeaderForwardedFor = "X-Forwarded-For"

// HeaderChallenge is the header for Answer.Challenge.
const HeaderChallenge = "Www-Authenticate"

// Write writes the answer to an HTTP response, without a body.
func (a Answer) Write(w http.ResponseWriter) {
	if a.Challenge != "" {
		w.Header()[HeaderChallenge] = []string{a.Challenge}
	}
	w.WriteHeader(a.Status)
}

// maxBody is the maximum size of a request body in bytes. Real requests are many times smaller.
const maxBody = 64 << 10

// MediaJSON is the media type of JSON.
const MediaJSON = "application/json"

// ReadPost returns the body of a POST request with the media type, up to 64 KiB. For any other request, it
// writes 405, 415, 413 or 400 and returns false. what describes the expected body in the error message.
func ReadPost(w http.ResponseWriter, r *http.Request, mediaType, what string) ([]byte, bool) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "method not allowed: send a POST with "+what, http.StatusMethodNotAllowed)
		return nil, false
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != mediaType {
		http.Error(w, "unsupported Content-Type: must be "+mediaType, http.StatusUnsupportedMediaType)
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, "request body too large: must be at most 64 KiB", http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, "could not read the request body", http.StatusBadRequest)
	}
	return body, err == nil
}

// WriteJSON answers with status 200 and a JSON document that caches must not store.
func WriteJSON(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", MediaJSON)
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(document) // an error means that the caller has closed the connection
}

// Subject returns the user name of a key in protocols that have users, such as apikey:NAMESPACE:NAME.
func Subject(key *verify.Key) string { return "apikey:" + key.Namespace + ":" + key.Name }
