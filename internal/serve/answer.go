package serve

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

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

// Answer is what a client is told, by HTTP.
type Answer struct {
	Status int
	// Challenge is the value of WWW-Authenticate; "" for none.
	Challenge string
}

// realm is what RFC 9110, section 11.5, calls the protection space.
const realm = `Bearer realm="apikey"`

// AnswerTo is what a client is told of a result.
func AnswerTo(result verify.Result) Answer {
	switch result.Class() {
	case verify.OK:
		return Answer{Status: http.StatusOK}
	case verify.Unauthenticated:
		return Answer{Status: http.StatusUnauthorized, Challenge: realm}
	case verify.InvalidToken:
		return Answer{Status: http.StatusUnauthorized, Challenge: realm + `, error="invalid_token"`}
	case verify.Forbidden:
		return Answer{Status: http.StatusForbidden}
	case verify.InsufficientScope:
		return Answer{Status: http.StatusForbidden, Challenge: realm + `, error="insufficient_scope"`}
	case verify.Unavailable:
	}
	return Answer{Status: http.StatusServiceUnavailable}
}

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

// ReadBody returns the body of a request, or answers that it can't be read.
func ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
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
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(document) // the caller is gone; there is nobody to tell
}

// Subject is the name of a key where users have one.
func Subject(key *verify.Key) string { return "apikey:" + key.Namespace + ":" + key.Name }
