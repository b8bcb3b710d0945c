package integration

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// The API server ends a streaming list early if too many keys change while it is read.
var _ = Describe("A verifier whose streaming list ends early", func() {
	It("reads pages, and has none of them in memory as a whole", func() {
		ns := governed()
		note := strings.Repeat("x", 200<<10)
		for i := range 101 {
			key := build.ApiKey(ns, fmt.Sprintf("key-%d", i))
			key.Annotations = map[string]string{"note": note}
			create(key)
		}

		config, err := plane.As(ctx, controlplane.Namespace, controlplane.VerifierAccount)
		Expect(err).NotTo(HaveOccurred())
		transport, err := rest.TransportFor(config)
		Expect(err).NotTo(HaveOccurred())
		target, err := url.Parse(plane.Admin.Host)
		Expect(err).NotTo(HaveOccurred())
		var pages atomic.Int64
		server := httptest.NewServer(&httputil.ReverseProxy{
			Transport:     transport,
			FlushInterval: -1,
			Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
			ModifyResponse: func(r *http.Response) error {
				query := r.Request.URL.Query()
				switch {
				case !strings.HasSuffix(r.Request.URL.Path, "/apikeys"):
				case query.Get("sendInitialEvents") == "true":
					r.Body = struct {
						io.Reader
						io.Closer
					}{io.LimitReader(r.Body, 1<<10), r.Body}
				case query.Get("watch") == "":
					pages.Add(1)
				}
				return nil
			},
		})
		DeferCleanup(server.Close)
		kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(controlplane.WriteKubeconfig(&rest.Config{Host: server.URL}, kubeconfig)).To(Succeed())

		at, err := controlplane.FreeVerifierAddresses()
		Expect(err).NotTo(HaveOccurred())
		verifier, err := plane.StartVerifier(ctx, GinkgoWriter, at, "--drain-delay=0s", "--namespaces="+ns, "--kubeconfig="+kubeconfig)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(verifier.Stop)
		Expect(verifier.WaitHTTP(ctx, verifier.Probes+"/readyz")).To(Succeed())
		Expect(pages.Load()).To(BeEquivalentTo(2))
		_, peak, err := verifier.Memory()
		Expect(err).NotTo(HaveOccurred())
		Expect(peak>>20).To(BeNumerically("<=", 50), "MiB: the verifier takes 35 without keys, and the first page has 20")
	})
})
