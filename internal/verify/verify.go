// Package verify decides whether a request may pass. This is the only place that decides. It knows keys and
// requests: don't read a clock here, and don't depend on HTTP, gRPC or Kubernetes.
package verify

import (
	"net/netip"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
)

// Key is what a decision needs to know about an ApiKey and one of its tokens. An ApiKey with several tokens
// has a Key for each. A Key never changes, except for the roles that its Roles include and its Use: after any other
// change of the ApiKey, [Keys] return another Key, and otherwise the same one. The zero value is refused.
type Key struct {
	// Namespace, Name and UID of the ApiKey.
	Namespace, Name, UID string

	// Suspended makes every token of the key refused, with the answer for an unknown token.
	Suspended bool
	// Retiring says that the token is the one before the last rotation. Decide ignores it: the Deadline says how long it
	// is accepted.
	Retiring bool
	// Deadline is the expiry time of the token.
	Deadline expiry.Deadline
	// Networks from which the key may be used.
	Networks access.Networks
	// Roles that the key carries, including those that other roles include.
	Roles *access.Roles
	// Attributes say whose key it is. They open nothing: no decision depends on them.
	Attributes Attributes

	// Use remembers when the token was last accepted, across all Keys of the token. Decide ignores it. Nil means
	// that nobody asks.
	Use *usage.Mark
}

// Keys find the API keys that exist at present.
type Keys interface {
	// Find returns the key with the digest, or nil. fresh reports whether the data about the key is recent
	// enough to accept it. It is false for all keys while Ready returns false.
	Find(digest token.Digest, now time.Time) (key *Key, fresh bool)
	// Ready reports whether the loaded keys are complete and recent enough to refuse a token as unknown. It
	// is false until all keys are loaded for the first time.
	Ready(now time.Time) bool
}

// Request is a request to decide on.
type Request struct {
	Credential Credential
	// Address is the client address. The zero value means unknown.
	Address netip.Addr
	// Route is the scope of the route.
	Route Route
}

// Decision is the outcome for a [Request].
type Decision struct {
	Result Result
	// Key is the key that the credential belongs to, or nil if there is none or it was not looked up.
	Key *Key
}

// Allowed reports whether the request may pass.
func (d Decision) Allowed() bool { return d.Result == Allowed }

// Decide decides on a request at the time now. It returns the first refusal in this order: [NotReady]
// (nothing can be answered), [NoCredential], [Malformed], [Unknown], [Expired], [NotReady] (the data about
// this key is stale), [Suspended], [AddressDenied], [BadRoute], [RoleMissing].
//
// [Expired] comes before a stale key's [NotReady] because an expiry time never changes, and because otherwise
// a client could find out that an expired token once belonged to a key.
func Decide(keys Keys, request *Request, now time.Time) Decision {
	var key *Key
	var fresh bool
	if request.Credential.form == wellFormed {
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
