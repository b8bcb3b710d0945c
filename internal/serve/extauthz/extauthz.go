// Package extauthz answers the external authorization calls of Envoy and of the gateways made of it (ext_authz v3, gRPC); it translates, and
// decides nothing.
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

// The keys of a route's context_extensions that are ours. Gateways add keys of their own, so only those that look like a
// misspelling of one of these make a route bad.
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

// Server implements envoy.service.auth.v3.Authorization. Every call succeeds, with a refusal inside where there is one: Envoy
// takes a failed call for a failed server, and with failure_mode_allow lets the request through.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	// Checker decides, and Reader reads credentials.
	Checker *serve.Protocol
	Reader  verify.Reader
	// Proxies say whose word on the client's address is taken. The peer of Envoy's connection counts as the client unless it is
	// a trusted proxy.
	Proxies access.Proxies
	// Defaults hold for every route, whatever it asks for.
	Defaults verify.Defaults
	// AllRoles hands on all roles of a key, and not only those that were asked for.
	AllRoles bool
	// KeepCredential leaves the token in the request that goes on to the upstream.
	KeepCredential bool
}

// Register adds a Server to a gRPC server. Unlike authv3.RegisterAuthorizationServer it has calls answered whose message can't be read.
func Register(r grpc.ServiceRegistrar, s *Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
		HandlerType: authv3.Authorization_ServiceDesc.HandlerType,
		Streams:     []grpc.StreamDesc{{StreamName: "Check", Handler: answer}},
		Metadata:    authv3.Authorization_ServiceDesc.Metadata,
	}, s)
}

// answer is Check as grpc-go serves a stream of which each side sends one message. On the wire that is a unary call.
func answer(server any, stream grpc.ServerStream) error {
	s := server.(*Server) //nolint:forcetypeassert // Register registers no other
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

// Check implements authv3.AuthorizationServer.
func (s *Server) Check(_ context.Context, message *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.respond(func() *authv3.CheckResponse { return s.decide(message) }), nil
}

// respond makes a response, which is a refusal where making it panics.
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
	credential := request.Credential
	if s.KeepCredential {
		credential = verify.Credential{}
	}
	ok.HeadersToRemove = headers.withheld(credential)
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"namespace": structpb.NewStringValue(key.Namespace),
			"name":      structpb.NewStringValue(key.Name),
			"uid":       structpb.NewStringValue(key.UID),
			"roles":     structpb.NewStringValue(roles),
		}},
	}
}

func denied(result verify.Result) *authv3.CheckResponse {
	answer := serve.AnswerTo(result)
	response := &authv3.DeniedHttpResponse{
		// HTTP's own numbers.
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

// source is the other end of Envoy's connection.
func source(message *authv3.CheckRequest) netip.Addr {
	// The zero address for a pipe, or for none.
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
			return verify.Bad("context extension %.64q: want %s or %s", name, extensionRoles, extensionNamespace)
		}
	}
	return verify.NewRoute(roles, namespaces)
}

func looksLike(name, ours string) bool {
	return len(name) >= len(ours) && strings.EqualFold(name[:len(ours)], ours)
}
