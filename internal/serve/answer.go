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

// The headers that tell an upstream who called. A 200 carries all of them, and none is empty: a gateway may leave a header that
// it finds empty as the client sent it.
const (
	HeaderNamespace = "X-Apikey-Namespace"
	HeaderName      = "X-Apikey-Name"
	HeaderUID       = "X-Apikey-Uid"
	HeaderRoles     = "X-Apikey-Roles"

	// identityPrefix begins all of these, and what else may be added in time.
	identityPrefix = "x-apikey-"
)

// NoRoles is the value of HeaderRoles where a route asks for none; no role can be called so.
const NoRoles = "-"

// IsIdentity tells whether a header, in whatever case, could be taken for one of those that tell who called: some servers take a
// dash, an underscore and a dot for the same.
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

// Withheld tells whether a header of a request, by its name in whatever case, must not go on to an upstream: it holds the credential, or
// could be taken for one of those that tell who called. With the zero credential, the latter alone.
func Withheld(header string, credential verify.Credential) bool {
	return credential.In(header) || IsIdentity(header)
}

// Roles is the value of HeaderRoles: the roles that the route asked for, all of which the key carries, or all of the key's. The
// former is bounded by the route's author; the latter can be 256 names of 253 bytes, more than the buffers of most proxies.
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

// Answer is what a client is told.
type Answer struct {
	// Status is that of HTTP.
	Status int
	// Challenge is the value of WWW-Authenticate; "" for none.
	Challenge string
	// Code is that of gRPC, and Message goes with it; "" for OK.
	Code    codes.Code
	Message string
}

// realm is what RFC 9110, section 11.5, calls the protection space.
const realm = `Bearer realm="apikey"`

// The codes of RFC 6750, section 3.1.
const (
	invalidToken      = "invalid_token"
	insufficientScope = "insufficient_scope"
)

// AnswerTo is what a client is told of a result, which is as much as its class says: the one place where a class becomes words.
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

// HeaderForwardedFor is the header in which proxies say who called them.
const HeaderForwardedFor = "X-Forwarded-For"

// HeaderChallenge is the header of an Answer's Challenge.
const HeaderChallenge = "Www-Authenticate"

// Write answers a request over HTTP, without a body.
func (a Answer) Write(w http.ResponseWriter) {
	if a.Challenge != "" {
		w.Header()[HeaderChallenge] = []string{a.Challenge}
	}
	w.WriteHeader(a.Status)
}

// maxBody is many times the size of anything that is asked with; what is larger is no question.
const maxBody = 64 << 10

// MediaJSON is the media type of JSON.
const MediaJSON = "application/json"

// ReadPost returns the body of a POST of a media type, of at most 64 KiB. Any other request is answered here, with 405, 415, 413 or 400;
// what names, for a person, what is wanted.
func ReadPost(w http.ResponseWriter, r *http.Request, mediaType, what string) ([]byte, bool) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "want a POST of "+what, http.StatusMethodNotAllowed)
		return nil, false
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != mediaType {
		http.Error(w, "want Content-Type "+mediaType, http.StatusUnsupportedMediaType)
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, "want a body of at most 64 KiB", http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, "the body can't be read", http.StatusBadRequest)
	}
	return body, err == nil
}

// WriteJSON answers a request with 200 and a document that must not be stored.
func WriteJSON(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", MediaJSON)
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(document) // the caller is gone; there is nobody to tell
}

// Subject is the name of a key where users have one.
func Subject(key *verify.Key) string { return "apikey:" + key.Namespace + ":" + key.Name }
