// Package integration tests the operator against a real API server with the real garbage collector and RBAC.
package integration

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// patience is long because the machine may be busy. Most waits take milliseconds.
const patience = 2 * time.Minute

var (
	ctx     context.Context
	plane   *controlplane.ControlPlane
	admin   client.Client
	asSelf  *rest.Config // the operator's service account
	self    client.Client
	witness *harness.Witness

	namespaces atomic.Int64
)

func TestIntegration(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "ApiKeys on a real control plane")
}

var _ = BeforeSuite(func() {
	SetDefaultEventuallyTimeout(patience)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	var cancel context.CancelFunc
	ctx, cancel = context.WithCancel(context.Background())
	DeferCleanup(cancel)

	var err error
	plane, err = controlplane.StartInstalled(ctx, controlplane.Options{Logs: os.Getenv("CONTROLPLANE_LOGS")})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return plane.Stop() })
	admin, err = client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	asSelf, err = plane.As(ctx, controlplane.Namespace, controlplane.ServiceAccount)
	Expect(err).NotTo(HaveOccurred())
	self, err = client.New(asSelf, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	witness, err = harness.NewWitness(ctx, plane.Admin)
	Expect(err).NotTo(HaveOccurred())
	ctrl.SetLogger(witness.Logger())
	klog.SetLogger(witness.Logger())
})

// The witness checks what all specs together must not have done.
var _ = AfterSuite(func() {
	if witness == nil {
		return
	}
	defer witness.Stop()
	// Make sure that the witness has seen something. A single focused spec, or one of many parallel processes, may see only a little.
	if suite, _ := GinkgoConfiguration(); !CurrentSpecReport().Failed() && len(os.Getenv("FOCUSED")) == 0 {
		most := 100
		if suite.ParallelTotal > 1 {
			most = 10 // a process that runs the floods runs few other specs
		}
		Expect(witness.Statuses()).To(BeNumerically(">", most))
		Expect(witness.Tokens()).To(BeNumerically(">", most))
	}
	Expect(witness.Violations()).To(BeEmpty(), "breaches of the status contract")
	Expect(witness.Leaks(ctx, admin)).To(BeEmpty(), "tokens outside Secrets")
})

func namespace() string {
	GinkgoHelper()
	name := fmt.Sprintf("test-%d", namespaces.Add(1))
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	return name
}

// options returns options for controllers that run as the operator's service account.
func options() harness.Options {
	return harness.Options{Config: asSelf, Witness: witness}
}

func controllers(o harness.Options) *harness.Controllers {
	GinkgoHelper()
	c, err := harness.NewControllers(o)
	Expect(err).NotTo(HaveOccurred())
	return c
}

func create(object client.Object) {
	GinkgoHelper()
	Expect(admin.Create(ctx, object)).To(Succeed())
}

// plant creates a token Secret that the operator didn't create, as somebody could who got around the admission policies: with the operator's
// own account, or while the policies were not installed.
func plant(secret *corev1.Secret) {
	GinkgoHelper()
	Expect(self.Create(ctx, secret)).To(Succeed())
}

func reread[T client.Object](object T) T {
	GinkgoHelper()
	Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
	return object
}

func exists(object client.Object) bool {
	GinkgoHelper()
	err := admin.Get(ctx, client.ObjectKeyFromObject(object), object)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return !apierrors.IsNotFound(err)
}

func secretOf(key *v1alpha1.ApiKey) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.SecretName()}}
}

func reason(key *v1alpha1.ApiKey) v1alpha1.Reason {
	if ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return v1alpha1.Reason(ready.Reason)
	}
	return ""
}

// settle reconciles a key until it is neither new nor being issued.
func settle(c *harness.Controllers, key *v1alpha1.ApiKey) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		_, err := c.Pass(ctx, key)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
		g.Expect(reason(key)).NotTo(BeElementOf(v1alpha1.Reason(""), v1alpha1.ReasonIssuing))
	}).Should(Succeed())
}

// expectIssued checks that a key is issued: it has one Secret of the right form, whose token hashes to status.hash. It compares digests, so
// that a failure prints no token.
func expectIssued(key *v1alpha1.ApiKey) {
	GinkgoHelper()
	reread(key)
	Expect(reason(key)).To(Equal(v1alpha1.ReasonIssued))
	Expect(meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)).To(BeTrue())
	secret := reread(secretOf(key))
	Expect(metav1.IsControlledBy(secret, key)).To(BeTrue(), "the Secret is the key's own")
	Expect(secret.Data).To(HaveLen(1))
	Expect(digestOf(secret, key)).To(Equal(key.Status.Hash))
}

func digestOf(secret *corev1.Secret, key *v1alpha1.ApiKey) string {
	GinkgoHelper()
	found, err := token.Parse(string(secret.Data[key.SecretKey()]))
	Expect(err).NotTo(HaveOccurred())
	return found.Digest().String()
}

// fakeClock returns a clock that starts at the next whole second, so that tests can be exact to the nanosecond.
func fakeClock() *clocktesting.FakeClock {
	return clocktesting.NewFakeClock(time.Now().UTC().Truncate(time.Second).Add(time.Second))
}
