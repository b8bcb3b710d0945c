package verify

// Result is the outcome of a decision. The zero value is a refusal.
type Result uint8

// Results. What a client can see of them is their [Class].
const (
	// NotReady means that the keys were never loaded or are stale, or that the data about this key is stale.
	NotReady Result = iota
	// NoCredential means that the request has no API key.
	NoCredential
	// Malformed means that the credential isn't a token, or that there is more than one.
	Malformed
	// Unknown means that no key has the digest of the token. That is also so after the key is deleted.
	Unknown
	// Expired means that the expiry time of the token has passed.
	Expired
	// Suspended means that spec.suspend is true. The client gets the answer for an unknown token.
	Suspended
	// AddressDenied means that the client address is outside of the key's networks, or unknown.
	AddressDenied
	// BadRoute means that the scope of the route is invalid. Accepting the request would turn a typo into an
	// open route.
	BadRoute
	// RoleMissing means that the key lacks a role that the route requires, or is in another namespace.
	RoleMissing
	// Allowed is the only result that isn't a refusal.
	Allowed

	// Results is the number of results.
	Results = iota
)

var resultNames = [Results]string{ //nolint:gosec // names of results
	NotReady: "NotReady", NoCredential: "NoCredential", Malformed: "Malformed", Unknown: "Unknown", Expired: "Expired",
	Suspended: "Suspended", AddressDenied: "AddressDenied", BadRoute: "BadRoute", RoleMissing: "RoleMissing", Allowed: "Allowed",
}

// String returns the name of the result, as in metrics and logs.
func (r Result) String() string { return resultNames[r] }

// Class is what a client can see of a result. All results of a class get the same answer, byte for byte, so
// that a client can't find out whether a token ever belonged to a key.
type Class uint8

// Classes, with the HTTP status of each.
const (
	// Unavailable is status 503.
	Unavailable Class = iota
	// Unauthenticated is status 401 with a challenge but without an error code, as RFC 6750, section 3.1,
	// demands for a request without a credential.
	Unauthenticated
	// InvalidToken is status 401 with the error code invalid_token (RFC 6750).
	InvalidToken
	// Forbidden is status 403 without an error code.
	Forbidden
	// InsufficientScope is status 403 with the error code insufficient_scope (RFC 6750).
	InsufficientScope
	// OK is status 200.
	OK
)

// Class returns the class of the result.
func (r Result) Class() Class {
	switch r {
	case NoCredential:
		return Unauthenticated
	case Malformed, Unknown, Expired, Suspended:
		return InvalidToken
	case AddressDenied, BadRoute:
		return Forbidden
	case RoleMissing:
		return InsufficientScope
	case Allowed:
		return OK
	case NotReady:
	}
	return Unavailable
}
