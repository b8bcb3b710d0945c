package guard

import (
	"context"
	"net/netip"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// gRPC metadata keys are lower case.
var (
	metadataAuthorization = strings.ToLower(verify.HeaderAuthorization)
	metadataAPIKey        = strings.ToLower(verify.HeaderAPIKey)
	metadataForwardedFor  = strings.ToLower(serve.HeaderForwardedFor)
	metadataTraceparent   = strings.ToLower(serve.HeaderTraceparent)
)

// UnaryServerInterceptor returns an interceptor that calls the handler if the call has an API key that meets
// the need of its method. needs returns that need for the full name of a method, such as
// "/package.Service/Method". Other calls fail with UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE.
//
// In the context that the handler receives, [FromContext] returns the identity of the API key. The metadata
// with the token and all metadata that start with x-apikey- are removed.
func (g *Guard) UnaryServerInterceptor(needs func(method string) Need) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := g.admit(ctx, needs(info.FullMethod))
		if err != nil {
			return nil, err
		}
		return handler(ctx, request)
	}
}

// StreamServerInterceptor does for streams what [Guard.UnaryServerInterceptor] does for unary calls. A stream
// is checked once, when it begins: it continues when its API key expires or is revoked.
func (g *Guard) StreamServerInterceptor(needs func(method string) Need) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := g.admit(stream.Context(), needs(info.FullMethod))
		if err != nil {
			return err
		}
		return handler(server, admitted{stream, ctx})
	}
}

type admitted struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc.ServerStream's own shape
}

// Context implements [grpc.ServerStream].
func (a admitted) Context() context.Context { return a.ctx }

func (g *Guard) admit(ctx context.Context, need Need) (_ context.Context, err error) {
	defer func() {
		if recovered := recover(); recovered != nil {
			g.grpc.Panicked(recovered)
			err = refusal(verify.NotReady)
		}
	}()
	headers, _ := metadata.FromIncomingContext(ctx)
	var address netip.Addr
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		address = access.ParsePeer(p.Addr.String())
	}
	request := verify.Request{
		Credential: g.reader.Headers(headers.Get(metadataAuthorization), headers.Get(metadataAPIKey)),
		Address:    g.proxies.Client(address, headers.Get(metadataForwardedFor)),
		Route:      need.route(),
	}
	decision := g.grpc.Check(&request, serve.Traceparent(headers.Get(metadataTraceparent)))
	if !decision.Allowed() {
		return nil, refusal(decision.Result)
	}
	inner := headers.Copy()
	for name := range inner {
		if serve.Withheld(name, request.Credential) {
			delete(inner, name)
		}
	}
	return withIdentity(metadata.NewIncomingContext(ctx, inner), decision.Key), nil
}

// refusal returns the gRPC status for a result other than [verify.Allowed].
func refusal(result verify.Result) error {
	answer := serve.AnswerTo(result)
	return status.Error(answer.Code, answer.Message)
}
