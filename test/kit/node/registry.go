package node

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/apikey-operator/apikey-operator/hack/release/image"
)

const (
	registryAddress = "127.0.0.1:5000"
	pause           = "pause:local"
)

// Registry is a registry of images, in memory.
type Registry struct {
	// Address is the host:port with which a reference to one of its images begins.
	Address string

	server *http.Server
}

func newRegistry(ctx context.Context) (*Registry, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", registryAddress)
	if err != nil {
		return nil, err
	}
	r := &Registry{Address: registryAddress, server: &http.Server{
		Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: 10 * time.Second,
	}}
	go func() { _ = r.server.Serve(listener) }() // until it is closed
	return r, nil
}

// Push uploads an image under a name and tag such as nginx:1.22, and returns its reference.
func (r *Registry) Push(as string, image v1.Image) (string, error) {
	reference, err := name.NewTag(r.reference(as))
	if err != nil {
		return "", err
	}
	if err := remote.Write(reference, image); err != nil {
		return "", fmt.Errorf("push %s: %w", reference, err)
	}
	return reference.String(), nil
}

// PushBinary uploads an image that contains one static binary and runs it. It returns the image's reference.
func (r *Registry) PushBinary(as, file string) (string, error) {
	binary, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	built, err := image.New(image.Description{Platform: Platform(), Entrypoint: []string{"/" + filepath.Base(file)}},
		[]image.File{{Path: "/" + filepath.Base(file), Mode: 0o555, Data: binary}})
	if err != nil {
		return "", err
	}
	return r.Push(as, built)
}

// Platform returns this machine's platform.
func Platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

func (r *Registry) reference(as string) string { return r.Address + "/" + as }

func (r *Registry) stop() error { return r.server.Close() }
