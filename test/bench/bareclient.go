package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// bareWatch is the floor of the verifier's start and of its revocations. It sends the verifier's own request for all ApiKeys, and decodes
// nothing but the events of deletions. It prints "ready" after the first load. An ext_authz server at the address refuses the names of
// deleted keys in place of tokens.
func bareWatch(ctx context.Context, kubeconfig, grpcAddress string) error {
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", grpcAddress)
	if err != nil {
		return err
	}
	names := &refuser{}
	envoy := grpc.NewServer()
	authv3.RegisterAuthorizationServer(envoy, names)
	go func() { _ = envoy.Serve(socket) }()
	defer envoy.Stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	url := strings.TrimSuffix(config.Host, "/") + "/apis/" + v1alpha1.GroupVersion.String() +
		"/apikeys?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := c.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("watch ApiKeys: %s", response.Status)
	}
	bookmark, deleted := []byte(`{"type":"BOOKMARK"`), []byte(`{"type":"DELETED"`)
	// Lines may be longer than the buffer, which then holds their beginning only.
	for events, begun := bufio.NewReaderSize(response.Body, 1<<20), true; ; {
		line, err := events.ReadSlice('\n')
		whole := begun && err == nil
		begun = err == nil
		switch {
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			if ctx.Err() != nil {
				return nil
			}
			return err
		case whole && bytes.HasPrefix(line, bookmark) && bytes.Contains(line, []byte(metav1.InitialEventsAnnotationKey)):
			fmt.Println(ready)
		case whole && bytes.HasPrefix(line, deleted):
			event := struct{ Object metav1.PartialObjectMetadata }{}
			if err := json.Unmarshal(line, &event); err != nil {
				return err
			}
			names.deleted.Store("Bearer "+event.Object.Name, true)
		}
	}
}

// refuser is an ext_authz server that refuses the credentials in deleted.
type refuser struct {
	authv3.UnimplementedAuthorizationServer
	deleted sync.Map
}

func (r *refuser) Check(ctx context.Context, request *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	if _, gone := r.deleted.Load(request.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"]); gone {
		return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{}}}, nil
	}
	return yes{}.Check(ctx, request)
}

// bareClient is a running process of [bareWatch].
type bareClient struct {
	*controlplane.Process
	grpc string
}

// startBareClient starts a bare client and waits until it is ready.
func startBareClient(kubeconfig string) (*bareClient, error) {
	address, err := controlplane.FreeAddress()
	if err != nil {
		return nil, err
	}
	process, err := startSelf("-bare-watch", kubeconfig, "-empty-grpc", address)
	if err != nil {
		return nil, err
	}
	return &bareClient{process, address}, nil
}

// ready is what a process that [startSelf] starts prints once it is ready.
const ready = "ready"

// startSelf starts this program with arguments and waits until it is ready.
func startSelf(args ...string) (*controlplane.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, args...) //nolint:noctx // the caller stops it
	process, err := controlplane.StartProcess(command, write)
	if err := errors.Join(err, write.Close()); err != nil {
		return nil, err
	}
	output := bufio.NewReader(read)
	if line, err := output.ReadString('\n'); err != nil || line != ready+"\n" {
		return nil, errors.Join(fmt.Errorf("%s printed %q, not %q", args[0], line, ready), err, process.Stop(), read.Close())
	}
	go func() { // what it prints from now on are errors
		_, _ = io.Copy(os.Stderr, output)
		_ = read.Close()
	}()
	return process, nil
}

// timeBareStart returns how long a bare client takes to read all ApiKeys.
func timeBareStart(kubeconfig string) (time.Duration, error) {
	b, err := startBareClient(kubeconfig)
	if err != nil {
		return 0, err
	}
	took := time.Since(b.Started())
	return took, b.Stop()
}
