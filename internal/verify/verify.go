// Package verify is the one place that says yes or no; it knows keys and requests, reads no clock, and must not come to know HTTP, gRPC or
// Kubernetes.
package verify

import (
	"net/netip"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// Key is what a decision needs to know of an ApiKey that somebody comes to with one of its tokens: a key that has several has a Key for each.
// It never changes, but for what its roles include: whoever has something else to say of a key makes another Key. As long as there is
// nothing else to say, [Keys] give the same one. The zero value opens nothing.
type Key struct {
	// Namespace, Name and UID are those of the ApiKey.
	Namespace, Name, UID string

	// Suspended says that the token is refused, as if it were unknown, until somebody resumes the key.
	Suspended bool
	// Deadline is the moment from which the token is dead.
	Deadline expiry.Deadline
	// Networks are where the key may be used from.
	Networks access.Networks
	// Roles are what the key carries, and all that they include.
	Roles *access.Roles
}

// Keys are the keys that exist at this moment.
type Keys interface {
	// Find returns the one key with this digest; nil if there is none. fresh tells whether what is known of it is recent enough to let
	// anybody in by it. No key is fresh while Ready says no.
	Find(digest token.Digest, now time.Time) (key *Key, fresh bool)
	// Ready tells whether enough is known, and recent enough, to say of a token that it is none. It says no before keys have been loaded
	// once.
	Ready(now time.Time) bool
}

// Request is what somebody asks to be let in with.
type Request struct {
	Credential Credential
	// Address is that of the client; the zero value says that nobody knows.
	Address netip.Addr
	// Route is what is asked for.
	Route Route
}

// Decision is the answer to a Request.
type Decision struct {
	Result Result
	// Key is the key that the credential belongs to; nil if there is none or the decision was made without it.
	Key *Key
}

// Allowed tells whether the answer is yes.
func (d Decision) Allowed() bool { return d.Result == Allowed }

// Decide answers a request at a moment. The first refusal wins, in this order: NotReady (nothing can be answered), NoCredential,
// Malformed, Unknown, Expired, NotReady (this key's place has been silent for too long), Suspended, AddressDenied, BadRoute, RoleMissing. Expired goes
// before what is known of the key lately: a deadline never moves, and nobody is to find out that an expired token was a key.
func Decide(keys Keys, request *Request, now time.Time) Decision {
	var key *Key
	var fresh bool
	if request.Credential.form == proven {
		key, fresh = keys.Find(request.Credential.digest, now)
	}
	switch {
	case fresh:
		return Decision{Result: judge(key, request, now), Key: key}
	case !keys.Ready(now):
		return Decision{Result: NotReady}
	case request.Credential.form == absent:
		return Decision{Result: NoCredential}
	case request.Credential.form == malformed:
		return Decision{Result: Malformed}
	case key == nil:
		return Decision{Result: Unknown}
	case key.Deadline.Passed(now):
		return Decision{Result: Expired, Key: key}
	default:
		return Decision{Result: NotReady, Key: key}
	}
}

func judge(key *Key, request *Request, now time.Time) Result {
	switch {
	case key.Deadline.Passed(now):
		return Expired
	case key.Suspended:
		return Suspended
	case !key.Networks.Contains(request.Address):
		return AddressDenied
	case request.Route.Problem != "":
		return BadRoute
	case request.Route.Namespace != "" && request.Route.Namespace != key.Namespace:
		return RoleMissing
	}
	if _, missing := key.Roles.Missing(request.Route.Roles); missing {
		return RoleMissing
	}
	return Allowed
}
