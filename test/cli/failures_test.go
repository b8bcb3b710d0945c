package cli

import (
	"net"
	"net/http"
	"net/http/httptest"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

var _ = Describe("What can't work", func() {
	DescribeTable("is told with its cure", func(args []string, code int, message string) {
		r := (&person{kubeconfig: "/no/such/file"}).run(args...)
		expectCode(r, code)
		Expect(r.out).To(BeEmpty())
		Expect(r.err).To(And(HavePrefix("error: "), ContainSubstring(message)))
	},
		Entry("no kubeconfig", []string{"list"}, 2, "no cluster is configured: set KUBECONFIG or --kubeconfig"),
		Entry("a kubeconfig that is not there", []string{"list", "--kubeconfig", "/no/such/file"}, 2, "/no/such/file: no such file or directory"),
		Entry("a backup into a folder that is not there", []string{"backup", "/no/such/folder/keys.json", "--server", "https://127.0.0.1:1"}, 2, "/no/such/folder/keys.json can't be written: no such file or directory"),
		Entry("an API server that is gone", []string{"list", "--server", "https://127.0.0.1:1"}, 3, "the API server can't be reached"),
		Entry("an unknown verb", []string{"lst"}, 2, `there is no verb "lst"; did you mean list?`),
		Entry("kubectl's verb", []string{"get"}, 2, `there is no verb "get"; did you mean list?`),
		Entry("another word", []string{"rm"}, 2, `there is no verb "rm"; did you mean revoke?`),
	)

	It("is told for a context that is not there", func() {
		r := root.run("list", "--context", "nowhere")
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring(`context "nowhere" does not exist`))
	})

	It("is told for an API server that does not know the person", func() {
		r := root.run("list", "--token", "wrong", "--server", plane.Admin.Host, "--insecure-skip-tls-verify", "--kubeconfig=/dev/null")
		expectCode(r, 3)
		Expect(r.err).To(ContainSubstring("the API server does not know you"))
	})

	It("is told for a person without rights", func() {
		p := having(namespace(), nil, nil)
		for _, args := range [][]string{{"list"}, {"describe", "x"}, {"roles"}, {"suspend", "x"}, {"revoke", "x", "--yes"}} {
			r := p.run(args...)
			expectCode(r, 3)
			Expect(r.err).To(ContainSubstring("forbidden: User"))
		}
	})

	It("is told for a cluster without ApiKeys", func() {
		server := httptest.NewServer(http.NotFoundHandler())
		DeferCleanup(server.Close)
		r := root.run("list", "--server", server.URL, "--kubeconfig=/dev/null")
		expectCode(r, 3)
		Expect(r.err).To(ContainSubstring("this cluster has no ApiKeys; install apikey-operator"))
	})

	It("is told for an API server that does not answer", func() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(listener.Close)
		kubeconfig := file("")
		Expect(controlplane.WriteKubeconfig(&rest.Config{Host: "http://" + listener.Addr().String()}, kubeconfig)).To(Succeed())
		r := (&person{kubeconfig: kubeconfig}).run("list", "--request-timeout", "1s")
		expectCode(r, 3)
		Expect(r.err).To(ContainSubstring("the API server can't be reached"))
	})
})
