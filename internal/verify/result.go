package verify

// Result is the outcome of a decision. The zero value is a refusal.
type Result uint8

// The results. What the client learns of them is Class's matter.
const (
	// NotReady: the keys have not been loaded once, or too long ago; or the one at hand comes from a place that has been silent for too long.
	NotReady Result = iota
	// NoCredential: the request carries no API key.
	NoCredential
	// Malformed: what it carries can't be a token, or is more than one.
	Malformed
	// Unknown: there is no key with this digest. So it is with a deleted one.
	Unknown
	// Expired: the key's deadline has passed.
	Expired
	// Suspended: the key is suspended. Its client learns what that of an unknown token does.
	Suspended
	// AddressDenied: the client's address is outside of the key's networks, or nobody knows it.
	AddressDenied
	// BadRoute: the route's own parameters can't be understood. Letting it through would be a door left open by a typo.
	BadRoute
	// RoleMissing: the route asks for a role that the key does not carry, or pins another namespace.
	RoleMissing
	// Allowed is the only yes.
	Allowed

	// Results is how many results there are.
	Results = iota
)

var resultNames = [Results]string{ //nolint:gosec // names of results
	NotReady: "NotReady", NoCredential: "NoCredential", Malformed: "Malformed", Unknown: "Unknown", Expired: "Expired",
	Suspended: "Suspended", AddressDenied: "AddressDenied", BadRoute: "BadRoute", RoleMissing: "RoleMissing", Allowed: "Allowed",
}

// String is the result's name, as in metrics and logs.
func (r Result) String() string { return resultNames[r] }

// Class is all that a client may learn of a result. Results of one class get the same answer, to the byte: nobody can find
// out by it whether a token was ever a key.
type Class uint8

// The classes, each with the HTTP status that it is told by.
const (
	// Unavailable is 503.
	Unavailable Class = iota
	// Unauthenticated is 401 with a challenge and no error code: RFC 6750, section 3.1, for a request without a credential.
	Unauthenticated
	// InvalidToken is 401 with the code invalid_token of RFC 6750.
	InvalidToken
	// Forbidden is a bare 403.
	Forbidden
	// InsufficientScope is 403 with the code insufficient_scope of RFC 6750.
	InsufficientScope
	// OK is 200.
	OK
)

// Class is what a client may learn of this result.
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
