// Package gateways tests the verifier with real clients: nginx, Caddy, Traefik, kube-apiserver, and a gRPC client that sends Envoy's messages.
package gateways

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// patience is long because the machine may be busy. Most waits take milliseconds.
const patience = 2 * time.Minute

// The clients' addresses. The gateways call the verifier from 127.0.0.1, the only trusted proxy. So the verifier can tell clients from
// proxies although all of them are on loopback.
const (
	trustedProxy = "127.0.0.1"
	inside       = "127.0.0.2"
	outside      = "127.0.0.3"
	insideCIDR   = "127.0.0.2/32"
)

const (
	roleRead  = "org.permission.order.read" // the role that the documented configurations require
	roleOther = "org.permission.order.write"
)

var (
	ctx      context.Context
	plane    *controlplane.ControlPlane
	admin    client.Client
	operator *controlplane.Operator
	verifier *controlplane.Verifier
	output   = &harness.Record{}

	namespaces atomic.Int64
)

func TestGateways(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The verifier behind real gateways")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(GinkgoLogr)
	SetDefaultEventuallyTimeout(patience)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	var cancel context.CancelFunc
	ctx, cancel = context.WithCancel(context.Background())
	DeferCleanup(cancel)

	// The API server calls the verifier, which calls the API server, so the verifier's address must be known before either starts.
	at, err := controlplane.FreeVerifierAddresses()
	Expect(err).NotTo(HaveOccurred())
	webhook := filepath.Join(GinkgoT().TempDir(), "webhook.kubeconfig")
	Expect(os.WriteFile(webhook, []byte(webhookConfig(at.HTTP)), 0o600)).To(Succeed())

	plane, err = controlplane.StartInstalled(ctx, controlplane.Options{
		Logs: os.Getenv("CONTROLPLANE_LOGS"),
		APIServer: map[string]string{
			"authentication-token-webhook-config-file": webhook,
			"authentication-token-webhook-version":     "v1",
			"authentication-token-webhook-cache-ttl":   "0s",
			"api-audiences":                            "https://kubernetes.default.svc",
		},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return plane.Stop() })
	admin, err = client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())

	startOperator()
	DeferCleanup(func() error { return operator.Stop() })
	verifier = startVerifier(at, "--trusted-proxies="+trustedProxy+"/32")
})

// No token may be in any log.
var _ = AfterSuite(func() {
	if plane == nil {
		return
	}
	tokens, leaks := output.Leaks()
	Expect(leaks).To(BeZero(), "tokens in the logs of operator and verifiers")
	if suite, _ := GinkgoConfiguration(); os.Getenv("FOCUSED") == "" {
		Expect(tokens).To(BeNumerically(">", 10/suite.ParallelTotal))
	}
})

// webhookConfig returns the file in docs/gateways for the given address, without TLS.
func webhookConfig(address string) string {
	return strings.NewReplacer(
		"https://apikey-verifier.apikey-operator-system:9443", "http://"+address,
		"    certificate-authority: /etc/kubernetes/apikey-verifier/ca.crt\n", "",
	).Replace(documented("kube-apiserver-webhook.yaml"))
}

func documented(name string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "gateways", name))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// startOperator starts an operator that rotates keys more often than in production.
func startOperator() {
	GinkgoHelper()
	var err error
	// Without a lease to lose: an operator that can't renew it on a busy machine ends, and nothing starts it again here.
	operator, err = plane.StartOperator(ctx, output, "--leader-elect=false", "--log-level=10", "--min-rotation-every=1s")
	Expect(err).NotTo(HaveOccurred())
}

// withoutOperator stops the operator until the end of the spec.
func withoutOperator() {
	GinkgoHelper()
	Expect(operator.Stop()).To(Succeed())
	DeferCleanup(startOperator)
}

func addresses() controlplane.VerifierAddresses {
	GinkgoHelper()
	at, err := controlplane.FreeVerifierAddresses()
	Expect(err).NotTo(HaveOccurred())
	return at
}

// startVerifier starts a verifier and waits until it is ready. It stops at the end of the spec or of the suite.
func startVerifier(at controlplane.VerifierAddresses, args ...string) *controlplane.Verifier {
	GinkgoHelper()
	v := launchVerifier(at, args...)
	Expect(v.WaitHTTP(ctx, v.Probes+"/readyz")).To(Succeed())
	return v
}

// launchVerifier is like startVerifier, but doesn't wait.
func launchVerifier(at controlplane.VerifierAddresses, args ...string) *controlplane.Verifier {
	GinkgoHelper()
	v, err := plane.StartVerifier(ctx, output, at, append([]string{"--log-level=10", "--log-allowed", "--drain-delay=100ms"}, args...)...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(v.Stop)
	return v
}

func namespace() string {
	GinkgoHelper()
	name := fmt.Sprintf("test-%d", namespaces.Add(1))
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	return name
}

// issue creates a key, waits until it is issued, and returns it with its token.
func issue(namespace, name string, options ...build.Option) (*v1alpha1.ApiKey, string) {
	GinkgoHelper()
	key := build.ApiKey(namespace, name, append([]build.Option{build.Roles(roleRead)}, options...)...)
	Expect(admin.Create(ctx, key)).To(Succeed())
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
		g.Expect(meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)).To(BeTrue())
	}).Should(Succeed())
	return key, delivered(key)
}

// delivered returns the token in a key's token Secret.
func delivered(key *v1alpha1.ApiKey) string {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}, secret)).To(Succeed())
	text := string(secret.Data[key.SecretKey()])
	output.Remember(text)
	return text
}

func revoke(key *v1alpha1.ApiKey) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, key)).To(Succeed())
}

// suspend suspends a key, or resumes it.
func suspend(key *v1alpha1.ApiKey, on bool) {
	GinkgoHelper()
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, on))
	Expect(admin.Patch(ctx, key, patch)).To(Succeed())
}

// touch changes an annotation, so that everybody who watches the object gets an event.
func touch(object client.Object) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"touched":%q}}}`, time.Now().Format(time.RFC3339Nano))
	Expect(admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// issueExpiring issues a key that expires soon, and returns its token after accepted has reported true for it, if it is not nil. A key that
// expires before that, on a busy machine, is replaced by one that lives twice as long.
func issueExpiring(namespace string, accepted func(token string) bool) string {
	GinkgoHelper()
	for life := 4; ; life *= 2 {
		lifetime := v1alpha1.Duration(fmt.Sprintf("%ds", life))
		key := build.ApiKey(namespace, "expires-after-"+string(lifetime), build.Roles(roleRead), build.After(lifetime))
		Expect(admin.Create(ctx, key)).To(Succeed())
		var text string
		var done bool
		Eventually(func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
			if text == "" && meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady) {
				secret := &corev1.Secret{}
				g.Expect(client.IgnoreNotFound(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: key.SecretName()}, secret))).To(Succeed())
				text = string(secret.Data[key.SecretKey()])
				output.Remember(text)
			}
			done = text != "" && (accepted == nil || accepted(text))
			over := key.Status.ExpiresAt != nil && !time.Now().Before(key.Status.ExpiresAt.Time)
			g.Expect(done || over).To(BeTrue())
		}).Should(Succeed())
		if done {
			return text
		}
	}
}
