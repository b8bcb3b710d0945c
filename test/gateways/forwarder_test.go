package gateways

import (
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// forwarder forwards connections from a verifier to the API server, until they are cut.
type forwarder struct {
	address, target string

	mu          sync.Mutex
	listener    net.Listener
	connections []net.Conn
}

func newForwarder() *forwarder {
	GinkgoHelper()
	server, err := url.Parse(plane.Admin.Host)
	Expect(err).NotTo(HaveOccurred())
	f := &forwarder{target: server.Host}
	// The forwarder listens on this address several times. FreeAddress keeps it reserved in between.
	f.address, err = controlplane.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	if server.Host == "" {
		f.target = plane.Admin.Host
	}
	f.open()
	DeferCleanup(f.cut)
	return f
}

func (f *forwarder) open() {
	GinkgoHelper()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.address)
	Expect(err).NotTo(HaveOccurred())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener = listener
	go f.accept(listener)
}

func (f *forwarder) accept(listener net.Listener) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		far, err := (&net.Dialer{}).DialContext(ctx, "tcp", f.target)
		if err != nil {
			_ = near.Close()
			continue
		}
		f.mu.Lock()
		f.connections = append(f.connections, near, far)
		f.mu.Unlock()
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			go func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
			}()
		}
	}
}

// cut closes all connections and refuses new ones. open accepts connections again.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.listener.Close()
	for _, connection := range f.connections {
		_ = connection.Close()
	}
	f.connections = nil
}

// kubeconfig returns the path of a kubeconfig for the verifier's service account that connects through the forwarder.
func (f *forwarder) kubeconfig() string {
	GinkgoHelper()
	return f.kubeconfigAs(controlplane.Namespace, controlplane.VerifierAccount)
}

func (f *forwarder) kubeconfigAs(namespace, account string) string {
	GinkgoHelper()
	config, err := plane.As(ctx, namespace, account)
	Expect(err).NotTo(HaveOccurred())
	through := rest.CopyConfig(config)
	through.Host = "https://" + f.address
	path := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(controlplane.WriteKubeconfig(through, path)).To(Succeed())
	return path
}
