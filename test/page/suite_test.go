// Package page tests kubectl apikey ui as people use it: the built binary, and a real browser, against a real API server with a real operator.
// It needs Chromium and npm, and fails without them.
package page

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/browser"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

const (
	read  = "org.permission.order.read"
	write = "org.permission.order.write"
	owner = "org.role.order-manager"
)

var (
	ctx   context.Context
	plane *controlplane.ControlPlane
	admin client.Client
	log   = &harness.Record{}
	// shared is the browser of all specs.
	shared *browser.Browser
	// rootConfig is the kubeconfig of an administrator of the cluster.
	rootConfig string
	operator   *controlplane.Operator

	names atomic.Int64
)

func TestPage(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "kubectl apikey ui")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(GinkgoLogr)
	SetDefaultEventuallyTimeout(browser.Patience)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	var cancel context.CancelFunc
	ctx, cancel = context.WithCancel(context.Background())
	DeferCleanup(cancel)
	var err error
	shared, err = browser.Start(ctx)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(shared.Close)

	plane, err = controlplane.StartInstalled(ctx, controlplane.Options{Logs: os.Getenv("CONTROLPLANE_LOGS")})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return plane.Stop() })
	admin, err = client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	startOperator()
	DeferCleanup(func() error { return operator.Stop() })
	rootConfig = filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(plane.AdminKubeconfig(rootConfig)).To(Succeed())
	for _, role := range []v1alpha1.ApiRole{
		{ObjectMeta: metav1.ObjectMeta{Name: read}, Spec: v1alpha1.ApiRoleSpec{Description: "Read orders and their history."}},
		{ObjectMeta: metav1.ObjectMeta{Name: write}, Spec: v1alpha1.ApiRoleSpec{Description: "Place, change and cancel orders."}},
		{ObjectMeta: metav1.ObjectMeta{Name: "org.permission.invoice.read"}, Spec: v1alpha1.ApiRoleSpec{Description: "Read invoices."}},
		{ObjectMeta: metav1.ObjectMeta{Name: "org.permission.stock.read"}, Spec: v1alpha1.ApiRoleSpec{Description: "Read what is in stock, by warehouse."}},
		{ObjectMeta: metav1.ObjectMeta{Name: owner}, Spec: v1alpha1.ApiRoleSpec{
			Description: "All that the people of the order desk do.", Includes: []string{read, write},
		}},
	} {
		Expect(admin.Create(ctx, &role)).To(Succeed())
	}
})

// startOperator returns when the operator is ready.
func startOperator() {
	GinkgoHelper()
	var err error
	// Without a lease to lose: an operator that can't renew it on a busy machine ends, and nothing starts it again here.
	operator, err = plane.StartOperator(ctx, log, "--leader-elect=false")
	Expect(err).NotTo(HaveOccurred())
}

// No token may be on standard error, on standard output or in the operator's log.
var _ = AfterSuite(func() {
	if plane != nil {
		_, leaks := log.Leaks()
		Expect(leaks).To(BeZero(), "tokens where they must not be")
	}
})

func namespace() string {
	GinkgoHelper()
	name := fmt.Sprintf("test-%d", names.Add(1))
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	return name
}

// having returns the kubeconfig of a person with a set of rights in a namespace.
func having(namespace string, rules ...rbacv1.PolicyRule) string {
	GinkgoHelper()
	name := fmt.Sprintf("person-%d", names.Add(1))
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta})).To(Succeed())
	Expect(admin.Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules})).To(Succeed())
	Expect(admin.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: name}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	})).To(Succeed())
	kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(plane.KubeconfigAs(ctx, namespace, name, kubeconfig)).To(Succeed())
	if len(rules) > 0 { // The API server learns of a binding some milliseconds later.
		Eventually(func() error {
			return exec.CommandContext(ctx, plane.Kubectl(), "--kubeconfig", kubeconfig, "auth", "can-i", "-q",
				rules[0].Verbs[0], rules[0].Resources[0]+"."+rules[0].APIGroups[0], "-n", namespace).Run()
		}).Should(Succeed())
	}
	return kubeconfig
}

// onKeys returns a rule about ApiKeys.
func onKeys(verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"apikeys"}, Verbs: verbs}
}

// add creates a key as an administrator does.
func add(namespace, name string, changes ...func(*v1alpha1.ApiKey)) *v1alpha1.ApiKey {
	GinkgoHelper()
	key := &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.ApiKeySpec{Roles: []string{read}, Expiry: v1alpha1.ApiKeyExpiry{After: "90d"}},
	}
	for _, change := range changes {
		change(key)
	}
	Expect(admin.Create(ctx, key)).To(Succeed())
	return key
}

// startVerifier returns a verifier that is ready.
func startVerifier() *controlplane.Verifier {
	GinkgoHelper()
	at, err := controlplane.FreeVerifierAddresses()
	Expect(err).NotTo(HaveOccurred())
	verifier, err := plane.StartVerifier(ctx, log, at, "--peer-is-client", "--drain-delay=0s")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(verifier.Stop)
	Expect(verifier.WaitHTTP(ctx, verifier.Probes+"/readyz")).To(Succeed())
	return verifier
}

// use makes a request with the token of a key, and waits until the operator has recorded that.
func use(verifier *controlplane.Verifier, namespace, name string) {
	GinkgoHelper()
	delivered := secret(namespace, name)
	Expect(exists(delivered)).To(BeTrue())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, verifier.HTTP+"/auth?namespace="+namespace, nil)
	Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Authorization", "Bearer "+string(delivered.Data["token"]))
	Eventually(func() (int, error) { // the verifier may not have seen the key yet
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}).Should(Equal(http.StatusOK))
	Eventually(func() time.Time { return get(namespace, name).LastUsedAt() }).ShouldNot(BeZero())
}

// patch changes a key by a merge patch, which no other writer is in the way of.
func patch(namespace, name, change string) {
	GinkgoHelper()
	key := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType, []byte(change)))).To(Succeed())
}

func get(namespace, name string) *v1alpha1.ApiKey {
	GinkgoHelper()
	key := &v1alpha1.ApiKey{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, key)).To(Succeed())
	return key
}

// exists reports whether an object exists.
func exists(object client.Object) bool {
	GinkgoHelper()
	err := admin.Get(ctx, client.ObjectKeyFromObject(object), object)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return err == nil
}

func secret(namespace, name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}
