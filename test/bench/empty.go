package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// emptyServers serves the floors of the verifier until the context ends: an ext_authz server that allows every request at once, and an HTTP
// handler that does nothing, or only answers with the headers of an identity. Like the verifier, they run in a process of their own.
func emptyServers(ctx context.Context, httpAddress, grpcAddress string, identity bool) error {
	httpSocket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", httpAddress)
	if err != nil {
		return err
	}
	grpcSocket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", grpcAddress)
	if err != nil {
		return err
	}
	headers := http.Header{}
	if identity {
		headers.Set(serve.HeaderNamespace, seedNamespace)
		headers.Set(serve.HeaderName, "seed-0")
		headers.Set(serve.HeaderUID, string(newUID()))
		headers.Set(serve.HeaderRoles, gatewayRole)
	}
	web := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { maps.Copy(w.Header(), headers) }),
		ReadHeaderTimeout: time.Minute,
	}
	envoy := grpc.NewServer()
	authv3.RegisterAuthorizationServer(envoy, yes{})
	failed := make(chan error, 2)
	go func() { failed <- web.Serve(httpSocket) }()
	go func() { failed <- envoy.Serve(grpcSocket) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		envoy.Stop()
		return errors.Join(web.Close())
	}
}

// yes is an ext_authz server that allows every request.
type yes struct {
	authv3.UnimplementedAuthorizationServer
}

func (yes) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
}

// startEmptyServers starts a process of [emptyServers], with further arguments.
func startEmptyServers(ctx context.Context, at controlplane.VerifierAddresses, args ...string) (*controlplane.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, append([]string{"-empty-http", at.HTTP, "-empty-grpc", at.GRPC}, args...)...) //nolint:noctx // the caller stops it
	process, err := controlplane.StartProcess(command, io.Discard)
	if err != nil {
		return nil, err
	}
	return process, process.WaitHTTP(ctx, "http://"+at.HTTP)
}
