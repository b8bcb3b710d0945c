package gateways

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	minted "github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// startOlder starts a verifier of an older revision, which hack/older-verifiers has built, until the end of the spec.
func startOlder(name string) *controlplane.Verifier {
	GinkgoHelper()
	kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(plane.KubeconfigAs(ctx, controlplane.Namespace, controlplane.VerifierAccount, kubeconfig)).To(Succeed())
	at, probes := addresses(), addresses()
	process, err := controlplane.StartProcess(exec.Command( //nolint:noctx // Process.Stop stops it
		filepath.Join(os.Getenv("OLDER_VERIFIERS"), name), "--kubeconfig="+kubeconfig, "--http-bind-address="+at.HTTP, "--grpc-bind-address=0",
		"--metrics-bind-address=0", "--health-probe-bind-address="+probes.HTTP, "--drain-delay=0s", "--trusted-proxies="+trustedProxy+"/32"), output)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(process.Stop)
	Expect(process.WaitHTTP(ctx, "http://"+probes.HTTP+"/readyz")).To(Succeed())
	return &controlplane.Verifier{Process: process, HTTP: "http://" + at.HTTP}
}

// `make test-older` sets OLDER_VERIFIERS.
var _ = Describe("A verifier of an older revision, beside today's", func() {
	DescribeTable("accepts no token that today's refuses, except for those of suspended keys if it doesn't know suspension", func(name string, suspends bool) {
		if os.Getenv("OLDER_VERIFIERS") == "" {
			Skip("OLDER_VERIFIERS is not set: use make test-older")
		}
		ns := namespace()
		older, c := startOlder(name), httpClient(outside)
		// expect waits until the older and today's verifier give these answers.
		expect := func(text, what string, byOlder, byToday int) {
			GinkgoHelper()
			Eventually(func() []int { return []int{auth(c, older, text), auth(c, verifier, text)} }).Should(Equal([]int{byOlder, byToday}), what)
		}
		const yes, no = http.StatusOK, http.StatusUnauthorized

		rotated, first := issue(ns, "rotated")
		expect(first, "before the rotation", yes, yes)
		second := requestRotation(rotated, "1;overlap=1h")
		expect(second, "the current token", yes, yes)
		expect(first, "the retiring token: refused too early", no, yes)

		suspended, off := issue(ns, "suspended")
		suspend(suspended, true)
		if suspends {
			expect(off, "of a suspended key", no, no)
		} else {
			expect(off, "of a suspended key, which this revision doesn't know: a wrong yes", yes, no)
		}
		revoked, gone := issue(ns, "revoked")
		revoke(revoked)
		expect(gone, "of a revoked key", no, no)
		expired := issueExpiring(ns, nil)
		expect(expired, "after the expiry time", no, no)

		begun, current := issue(ns, "begun")
		withoutOperator()
		pending := minted.Mint(minted.DefaultPrefix)
		output.Remember(pending.Reveal())
		writeRotation(begun, fmt.Sprintf(`{"pending":{"hash":%q,"tokenHint":%q,"overlap":"1h"}}`, pending.Digest(), pending.Hint()))
		expect(pending.Reveal(), "a pending token: accepted too late", no, yes)
		expect(current, "the current token while another one is pending", yes, yes)
		// The end of the overlap, without waiting for it.
		writeRotation(rotated, `{"retiring":null}`)
		expect(first, "a retired token", no, no)
	},
		Entry("before rotation", "before-rotation", true),
		Entry("before suspension", "before-suspension", false),
	)
})
