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

// The names of metadata are in lower case.
var (
	metadataAuthorization = strings.ToLower(verify.HeaderAuthorization)
	metadataAPIKey        = strings.ToLower(verify.HeaderAPIKey)
	metadataForwardedFor  = strings.ToLower(serve.HeaderForwardedFor)
	metadataTraceparent   = strings.ToLower(serve.HeaderTraceparent)
)

// UnaryServerInterceptor lets calls in that have what their method needs. needs says what that is, by the full name of the method
// ("/package.Service/Method"). The handler finds the caller by FromContext, and neither the token nor metadata called x-apikey-…
// in its context. Others get UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE.
func (g *Guard) UnaryServerInterceptor(needs func(method string) Need) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := g.admit(ctx, needs(info.FullMethod))
		if err != nil {
			return nil, err
		}
		return handler(ctx, request)
	}
}

// StreamServerInterceptor is UnaryServerInterceptor for streams. A stream is checked when it begins.
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

// Context implements grpc.ServerStream.
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

// refusal is the status of a result that is not Allowed.
func refusal(result verify.Result) error {
	answer := serve.AnswerTo(result)
	return status.Error(answer.Code, answer.Message)
}
