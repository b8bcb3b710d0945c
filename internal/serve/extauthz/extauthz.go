// Package extauthz answers external authorization calls of Envoy and of gateways based on it (ext_authz v3
// over gRPC). It only translates: don't decide here.
package extauthz

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/apikey-operator/apikey-operator/internal/access"
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

// Server implements envoy.service.auth.v3.Authorization. Every call succeeds, and the response carries the
// refusal: Envoy takes a failed call for a failed server, and accepts the request if failure_mode_allow is
// set.
type Server struct {
	authv3.UnimplementedAuthorizationServer

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

// Register adds the server to a gRPC server. Unlike authv3.RegisterAuthorizationServer, it also answers calls
// whose message can't be read.
func Register(r grpc.ServiceRegistrar, s *Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
		HandlerType: authv3.Authorization_ServiceDesc.HandlerType,
		Streams:     []grpc.StreamDesc{{StreamName: "Check", Handler: answer}},
		Metadata:    authv3.Authorization_ServiceDesc.Metadata,
	}, s)
}

// answer serves Check as a stream with one message in each direction, which is the same on the wire as a
// unary call.
func answer(server any, stream grpc.ServerStream) error {
	s := server.(*Server) //nolint:forcetypeassert // Register takes a *Server
	message := &authv3.CheckRequest{}
	err := serve.Receive(stream, message)
	unreadable := errors.Is(err, serve.ErrUnreadable)
	if err != nil && !unreadable {
		return err
	}
	return stream.SendMsg(s.respond(func() *authv3.CheckResponse {
		if unreadable {
			return denied(s.Checker.Check(&verify.Request{Credential: verify.Unreadable()}, "").Result)
		}
		return s.decide(message)
	}))
}

// Check implements [authv3.AuthorizationServer].
func (s *Server) Check(_ context.Context, message *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.respond(func() *authv3.CheckResponse { return s.decide(message) }), nil
}

// respond returns the response of decide, or a refusal if decide panics.
func (s *Server) respond(decide func() *authv3.CheckResponse) (response *authv3.CheckResponse) {
	defer func() {
		if recovered := recover(); recovered != nil {
			s.Checker.Panicked(recovered)
			response = denied(verify.NotReady)
		}
	}()
	return decide()
}

func (s *Server) decide(message *authv3.CheckRequest) *authv3.CheckResponse {
	headers := headersOf(message)
	request := verify.Request{
		Credential: s.Reader.Headers(headers.values(headerAuthorization), headers.values(headerAPIKey)),
		Address:    s.Proxies.Client(source(message), headers.values(headerForwardedFor)),
		Route:      s.Defaults.Apply(route(message.GetAttributes().GetContextExtensions())),
	}
	decision := s.Checker.Check(&request, serve.Traceparent(headers.values(headerTraceparent)))
	if !decision.Allowed() {
		return denied(decision.Result)
	}
	return s.allowed(&request, decision.Key, headers)
}

func (s *Server) allowed(request *verify.Request, key *verify.Key, headers headers) *authv3.CheckResponse {
	roles := serve.Roles(key, request.Route, s.AllRoles)
	ok := &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{
		overwrite(headerNamespace, key.Namespace),
		overwrite(headerName, key.Name),
		overwrite(headerUID, key.UID),
		overwrite(headerRoles, roles),
	}}
	for _, a := range s.Attributes {
		ok.Headers = append(ok.Headers, overwrite(a.Lower, key.Attributes.Get(a.Attribute)))
	}
	credential := request.Credential
	if s.KeepCredential {
		credential = verify.Credential{}
	}
	ok.HeadersToRemove = headers.withheld(credential, s.Attributes)
	metadata := map[string]*structpb.Value{
		"namespace": structpb.NewStringValue(key.Namespace),
		"name":      structpb.NewStringValue(key.Name),
		"uid":       structpb.NewStringValue(key.UID),
		"roles":     structpb.NewStringValue(roles),
	}
	if !key.Attributes.Empty() {
		metadata["attributes"] = attributes(key)
	}
	return &authv3.CheckResponse{
		Status:          &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: &structpb.Struct{Fields: metadata},
	}
}

// attributes returns all attributes of a key, by name.
func attributes(key *verify.Key) *structpb.Value {
	fields := map[string]*structpb.Value{}
	for name, value := range key.Attributes.All() {
		fields[name] = structpb.NewStringValue(value)
	}
	return structpb.NewStructValue(&structpb.Struct{Fields: fields})
}

func denied(result verify.Result) *authv3.CheckResponse {
	answer := serve.AnswerTo(result)
	response := &authv3.DeniedHttpResponse{
		// Envoy's enum has the numbers of HTTP.
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(answer.Status)}, //nolint:gosec // 401, 403 or 503
	}
	if answer.Challenge != "" {
		response.Headers = []*corev3.HeaderValueOption{overwrite(headerChallenge, answer.Challenge)}
	}
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(answer.Code)}, //nolint:gosec // a gRPC code
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: response},
	}
}

func overwrite(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// source returns the peer address of Envoy's connection.
func source(message *authv3.CheckRequest) netip.Addr {
	// A pipe or a missing address results in the zero address.
	address, _ := netip.ParseAddr(message.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress())
	return address
}

func route(extensions map[string]string) verify.Route {
	var roles, namespaces []string
	for name, value := range extensions {
		switch {
		case name == extensionRoles:
			roles = strings.Split(value, ",")
			for i := range roles {
				roles[i] = strings.TrimSpace(roles[i])
			}
		case name == extensionNamespace:
			namespaces = []string{value}
		case looksLike(name, "role"), looksLike(name, extensionNamespace):
			return verify.Bad("unknown context extension %.64q: must be %s or %s", name, extensionRoles, extensionNamespace)
		}
	}
	return verify.NewRoute(roles, namespaces)
}

func looksLike(name, ours string) bool {
	return len(name) >= len(ours) && strings.EqualFold(name[:len(ours)], ours)
}
