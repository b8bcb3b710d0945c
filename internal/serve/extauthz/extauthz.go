// Package extauthz answers external authorization calls of Envoy and of gateways based on it (ext_authz v3
// over gRPC). It only translates: don't decide here.
package extauthz

import (
	"errors"
	"net/netip"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/envoy"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Keys of a route's context_extensions. Gateways add keys of their own, so an unknown key is a
// [verify.BadRoute] only if it looks like a misspelling of one of these.
const (
	extensionRoles     = "roles"
	extensionNamespace = "namespace"
)

// Envoy's header names are in lower case.
var (
	headerNamespace = strings.ToLower(serve.HeaderNamespace)
	headerName      = strings.ToLower(serve.HeaderName)
	headerUID       = strings.ToLower(serve.HeaderUID)
	headerRoles     = strings.ToLower(serve.HeaderRoles)
	headerChallenge = strings.ToLower(serve.HeaderChallenge)

	headerAuthorization = strings.ToLower(verify.HeaderAuthorization)
	headerAPIKey        = strings.ToLower(verify.HeaderAPIKey)
	headerForwardedFor  = strings.ToLower(serve.HeaderForwardedFor)
	headerTraceparent   = strings.ToLower(serve.HeaderTraceparent)
)

// Server serves envoy.service.auth.v3.Authorization. Every call succeeds, and the response carries the
// refusal: Envoy takes a failed call for a failed server, and accepts the request if failure_mode_allow is
// set.
type Server struct {
	// Checker decides on requests.
	Checker *serve.Protocol
	// Reader reads credentials.
	Reader verify.Reader
	// Proxies determine the client address. The peer of Envoy's connection is the client unless it is a
	// trusted proxy.
	Proxies access.Proxies
	// Defaults apply to every route in addition to its own scope.
	Defaults verify.Defaults
	// AllRoles sends all roles of the key to the upstream instead of those that the route requires.
	AllRoles bool
	// Attributes are sent to the upstream in headers. The dynamic metadata has all attributes of the key.
	Attributes []serve.AttributeHeader
	// KeepCredential forwards the token to the upstream.
	KeepCredential bool
}

// Service and Method are the name of the gRPC method that gateways call.
const (
	Service = "envoy.service.auth.v3.Authorization"
	Method  = "Check"
)

// Register adds the server to a gRPC server, which must have the option [serve.Codec]. Unlike a service of
// go-control-plane, it also answers calls whose message can't be read.
func Register(r grpc.ServiceRegistrar, s *Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: Service,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: Method, Handler: answer}},
		Metadata:    "envoy/service/auth/v3/external_auth.proto",
	}, s)
}

// answer serves Check as a stream with one message in each direction, which is the same on the wire as a
// unary call.
func answer(server any, stream grpc.ServerStream) error {
	s := server.(*Server) //nolint:forcetypeassert // Register takes a *Server
	message, err := serve.Receive(stream)
	response := serve.NewEncoded()
	switch {
	case err == nil:
		*response = s.AppendAnswer(*response, message.ReadOnlyData())
		message.Free()
	case errors.Is(err, serve.ErrUnreadable):
		*response = s.appendUnreadable(*response)
	default:
		return err
	}
	return stream.SendMsg(response)
}

// AppendAnswer appends the encoded CheckResponse for an encoded CheckRequest. If the decision panics, the response is
// a refusal.
func (s *Server) AppendAnswer(b, message []byte) []byte {
	c := calls.Get().(*call) //nolint:forcetypeassert // nothing else is in there
	if !c.Read(message) {
		calls.Put(c)
		return s.appendUnreadable(b)
	}
	answer := s.decide(b, c)
	c.reset()
	calls.Put(c)
	return answer
}

// appendUnreadable appends the answer for a message that can't be read.
func (s *Server) appendUnreadable(b []byte) (answer []byte) {
	defer s.refusePanic(b, &answer)
	return appendDenied(b, s.Checker.Check(&verify.Request{Credential: verify.Unreadable()}, "").Result)
}

// decide appends the answer for a call.
func (s *Server) decide(b []byte, c *call) (answer []byte) {
	defer s.refusePanic(b, &answer)
	// A pipe or a missing address results in the zero address.
	peer, _ := netip.ParseAddr(string(c.Address()))
	c.authorization = c.AppendValues(c.authorization, headerAuthorization)
	c.apiKey = c.AppendValues(c.apiKey, headerAPIKey)
	c.forwardedFor = c.AppendValues(c.forwardedFor, headerForwardedFor)
	c.traceparent = c.AppendValues(c.traceparent, headerTraceparent)
	request := verify.Request{
		Credential: s.Reader.Headers(c.authorization, c.apiKey),
		Address:    s.Proxies.Client(peer, c.forwardedFor),
		Route:      s.Defaults.Apply(route(&c.Request)),
	}
	decision := s.Checker.Check(&request, serve.Traceparent(c.traceparent))
	if !decision.Allowed() {
		return appendDenied(b, decision.Result)
	}
	return s.appendAllowed(b, &request, decision.Key, c)
}

// refusePanic is deferred. If there was a panic, it replaces the answer by a refusal. b is what comes before the answer.
func (s *Server) refusePanic(b []byte, answer *[]byte) {
	if recovered := recover(); recovered != nil {
		s.Checker.Panicked(recovered)
		*answer = appendDenied(b, verify.NotReady)
	}
}

func (s *Server) appendAllowed(b []byte, request *verify.Request, key *verify.Key, c *call) []byte {
	roles := serve.Roles(key, request.Route, s.AllRoles)
	ok := &c.ok
	ok.Set = append(ok.Set,
		envoy.Field{Name: headerNamespace, Value: key.Namespace},
		envoy.Field{Name: headerName, Value: key.Name},
		envoy.Field{Name: headerUID, Value: key.UID},
		envoy.Field{Name: headerRoles, Value: roles},
	)
	for _, a := range s.Attributes {
		ok.Set = append(ok.Set, envoy.Field{Name: a.Lower, Value: key.Attributes.Get(a.Attribute)})
	}
	credential := request.Credential
	if s.KeepCredential {
		credential = verify.Credential{}
	}
	ok.Remove = appendWithheld(ok.Remove, &c.Request, credential, s.Attributes)
	ok.Metadata = append(ok.Metadata,
		envoy.Field{Name: "namespace", Value: key.Namespace},
		envoy.Field{Name: "name", Value: key.Name},
		envoy.Field{Name: "uid", Value: key.UID},
		envoy.Field{Name: "roles", Value: roles},
	)
	if !key.Attributes.Empty() {
		for name, value := range key.Attributes.All() {
			ok.Attributes = append(ok.Attributes, envoy.Field{Name: name, Value: value})
		}
	}
	return ok.Append(b)
}

func appendDenied(b []byte, result verify.Result) []byte {
	answer := serve.AnswerTo(result)
	var headers []envoy.Field
	if answer.Challenge != "" {
		headers = []envoy.Field{{Name: headerChallenge, Value: answer.Challenge}}
	}
	return envoy.AppendDenied(b, uint32(answer.Code), uint32(answer.Status), headers) //nolint:gosec // 401, 403 or 503
}

// call is the memory of a call, which later calls use again.
type call struct {
	envoy.Request

	ok envoy.OK
	// Values of headers.
	authorization, apiKey, forwardedFor, traceparent []string
}

var calls = sync.Pool{New: func() any { return &call{} }}

// reset drops everything that belongs to the call, above all the token.
func (c *call) reset() {
	c.Reset()
	c.ok.Reset()
	c.authorization, c.apiKey = envoy.Reuse(c.authorization), envoy.Reuse(c.apiKey)
	c.forwardedFor, c.traceparent = envoy.Reuse(c.forwardedFor), envoy.Reuse(c.traceparent)
}

func route(request *envoy.Request) verify.Route {
	var roles, namespaces []string
	for name, value := range request.Extensions() {
		switch {
		case string(name) == extensionRoles:
			roles = strings.Split(string(value), ",")
			for i := range roles {
				roles[i] = strings.TrimSpace(roles[i])
			}
		case string(name) == extensionNamespace:
			namespaces = []string{string(value)}
		case looksLike(string(name), "role"), looksLike(string(name), extensionNamespace):
			return verify.Bad("unknown context extension %.64q: must be %s or %s", name, extensionRoles, extensionNamespace)
		}
	}
	return verify.NewRoute(roles, namespaces)
}

func looksLike(name, ours string) bool {
	return len(name) >= len(ours) && strings.EqualFold(name[:len(ours)], ours)
}
