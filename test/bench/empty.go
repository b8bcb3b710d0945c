package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// emptyServers are the floors of the verifier: an ext_authz server that says yes at once, and a handler that does nothing, in a process
// of their own as the verifier is. It runs until the context ends.
func emptyServers(ctx context.Context, httpAddress, grpcAddress string) error {
	httpSocket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", httpAddress)
	if err != nil {
		return err
	}
	grpcSocket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", grpcAddress)
	if err != nil {
		return err
	}
	web := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
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

type yes struct {
	authv3.UnimplementedAuthorizationServer
}

func (yes) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
}

func startEmptyServers(ctx context.Context, at controlplane.VerifierAddresses) (*controlplane.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, "-empty-http", at.HTTP, "-empty-grpc", at.GRPC) //nolint:noctx // stopped by the caller
	process, err := controlplane.StartProcess(command, io.Discard)
	if err != nil {
		return nil, err
	}
	return process, process.WaitHTTP(ctx, "http://"+at.HTTP)
}
