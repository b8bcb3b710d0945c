// Package model says what ApiKeys, the operator and verifiers may do, given what was done to them. It must know nothing of Kubernetes, of
// processes, or of how a history was recorded.
//
// A [History] is what a run did and saw. An operation took effect at some moment between its request and its answer. So the model never
// asks for the state at a moment, but for all states that were possible during an interval. An answer of a verifier is a violation only if
// none of them explains it. [Judge] returns all violations of a history, and [Shrink] the shortest history that still shows one.
//
// [Promises] says how far a verifier may lag behind. docs/torture.md gives the reason for each tolerance.
//
// To add a feature: an event if something new is seen, a field of [Key] if there is something new to know of a key, a line in rules, and a
// case in [world.results] if verifiers answer by it; then a table of planted defects in the tests, each with its clean twin. What can be
// edited on a key is a setting, as suspension is in settings.go. What gives a key another token extends [Key.accepted], and says in
// [world.judgeTokens] which changes of a digest it allows.
package model

import (
	"fmt"
	"net/netip"
	"time"
)

// Promises are the tolerances.
type Promises struct {
	// Watch is how long a running verifier or operator may take to learn what this program's own watch has learned already. A process that
	// has lost its watch waits for at most three seconds before it asks for another one. Two more are for reading what it missed.
	Watch time.Duration
	// MaxStaleness is the verifiers' --max-staleness.
	MaxStaleness time.Duration
	// ClockTolerance is the largest skew of a clock that an operator trusts; see docs/lifecycle.md.
	ClockTolerance time.Duration
}

// History is what a run did and saw, in the order in which it was recorded.
type History []Event

// Event is a part of a history: an [Operation], a [Fault], a [Start], a [Beat], a [Key], a [Secret], an [Answer], a [Settled] or a
// [Finding].
type Event interface {
	// Span returns when the event began and when it ended.
	Span() (from, to time.Time)
	// Touches reports whether the event is about a subject: the UID or namespace/name of a key, a digest, a process, a setting.
	Touches(subject string) bool
	fmt.Stringer
}

// Targets of faults that concern all processes.
const (
	APIServer = "apiserver"
	Etcd      = "etcd"
	// Machine is the machine of this program. The program's own ticks show when it did not run.
	Machine = "machine"
)

// Operation is a request to the API server, repeated until it was done.
type Operation struct {
	// Kind is create, delete, edit, suspend, resume, rotate, retire, or one that the model does not know.
	Kind string
	// Subject is the key's namespace/name, or the name of a setting.
	Subject string
	// UID is the key's.
	UID string
	// Asked is when it was first sent. Answered is when the API server said that it was done, or zero.
	Asked, Answered time.Time
	// Value is what a setting was changed to.
	Value *Setting
	// Overlap is that of a requested rotation.
	Overlap time.Duration
}

// The kinds of operations that turn a key off and on.
const (
	Suspend = "suspend"
	Resume  = "resume"
)

// The kinds of operations that request a rotation, and the end of the retiring token.
const (
	Rotate = "rotate"
	Retire = "retire"
)

// Setting is a value of something that can be edited. Its name begins with its kind: role/NAME, policy/NAME, label/NAMESPACE, and
// suspend/UID for a key, which [Operation] names by its kind and UID.
type Setting struct {
	// Absent says that it was deleted.
	Absent bool
	// Includes are a role's.
	Includes []string
	// Roles are those that a policy allows: names, prefixes with a final .*, or *.
	Roles []string
	// Selects is the value of the namespace label that a policy asks for; "" asks for none.
	Selects string
	// Label is the value of a namespace's label.
	Label string
	// Suspended says that a key is suspended.
	Suspended bool
}

// Fault is something that was done to a process.
type Fault struct {
	// Kind is pause, kill, lease, jump or stall.
	Kind string
	// Target is the process, or one of the targets that concern everybody.
	Target string
	// From is a moment before it began. Back is a moment before the target could work again, and To one at which it did. Both are zero
	// while the fault lasts.
	From, Back, To time.Time
	// Offset is how far a clock jumped.
	Offset time.Duration
}

// Start is the start of a process.
type Start struct {
	Process string
	At      time.Time
}

// Beat is a change of an object that only shows verifiers that the API server is there, as this program's own watch saw it.
type Beat struct {
	// Kind is the kind of the object; verifiers need all of [BeatKinds].
	Kind string
	At   time.Time
}

// BeatKinds are the kinds that a verifier has a watch for each of.
var BeatKinds = []string{"ApiKey", "ApiRole"}

// Key is an ApiKey as this program's own watch saw it.
type Key struct {
	At                   time.Time
	UID, Namespace, Name string
	// Version is the resourceVersion.
	Version uint64
	// Gone says that the key is deleted, or is being deleted.
	Gone bool
	// Roles and Networks are of its spec.
	Roles    []string
	Networks []netip.Prefix
	// TTL is how long the expired key stays. Kept says that it stays until somebody deletes it.
	TTL  time.Duration
	Kept bool
	// Suspended is spec.suspend. Lagging says that the operator has not answered the last edit of the spec yet.
	Suspended, Lagging bool
	// Digest, Issued, Deadline and Reason are of its status. A zero deadline is none.
	Digest   string
	Issued   time.Time
	Deadline time.Time
	Reason   string
	// Pending and Retiring are the digests of the two other tokens of a rotation, or "". RetiresAt is the end of the retiring one.
	Pending, Retiring string
	RetiresAt         time.Time
	// Rotations is how many were confirmed, and RotatedAt when the last one was. Waiting says that one is requested or begun, and that the
	// operator has neither ended it nor said what blocks it.
	Rotations int
	RotatedAt time.Time
	Waiting   bool
	// Used is the last use on record, in whole seconds, or zero.
	Used time.Time
}

// Reasons of Ready that the model knows.
const (
	ReasonIssued    = "Issued"
	ReasonSuspended = "Suspended"
	ReasonExpired   = "Expired"
)

// Secret is a token Secret, when this program's own watch first saw it.
type Secret struct {
	At              time.Time
	Namespace, Name string
	// Owner is the UID of the ApiKey.
	Owner string
	// Digest is that of its token.
	Digest string
}

// Result is what a client learns from an answer.
type Result string

// The results. Over TokenReview and introspection all refusals but NotReady look alike.
const (
	Allowed      Result = "Allowed"
	NoCredential Result = "NoCredential" //nolint:gosec // it is the name of a result
	InvalidToken Result = "InvalidToken"
	Forbidden    Result = "Forbidden"
	RoleMissing  Result = "RoleMissing"
	NotReady     Result = "NotReady"
	Refused      Result = "Refused"
	// Unreachable says that there was no answer.
	Unreachable Result = "Unreachable"
)

// The protocols.
const (
	ForwardAuth   = "forward-auth"
	ExtAuthz      = "ext_authz"
	TokenReview   = "TokenReview"
	Introspection = "introspection"
)

// Credential is what a request carries.
type Credential string

// The credentials: none, what can't be a token, or a token.
const (
	NoToken   Credential = "none"
	Malformed Credential = "malformed"
	Token     Credential = "token"
)

// Answer is an answer of a verifier to a request, or the lack of one.
type Answer struct {
	Verifier, Protocol string
	// Start is before the request was sent, and End after the answer was received.
	Start, End time.Time
	Credential Credential
	// Digest is that of the token.
	Digest string
	// Address is the client's address, or zero if the verifier can't know it.
	Address netip.Addr
	// Role and Namespace are what the route requires; "" requires nothing.
	Role, Namespace string

	Result Result
	// UID is the key that the answer names, and Roles are all roles of the key, where the protocol returns them.
	UID   string
	Roles []string
	// Bytes identify all that the client received, of a refusal; "" if they are not compared.
	Bytes string
}

// Settled is the state at the end of a run, after all faults have ended and everything has had time to settle.
type Settled struct {
	// At is when the last fault had ended, and Until when the state below was read.
	At, Until time.Time
	// Secrets are all token Secrets.
	Secrets []Secret
}

// Finding is what other checks found: traces of tokens outside of Secrets, and breaches of the status contract.
type Finding struct {
	At   time.Time
	Text string
}
