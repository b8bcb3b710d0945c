package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// frozen is a client whose cache has stopped: it shows one ApiKey as it was.
type frozen struct {
	client.Client
	view *v1alpha1.ApiKey
}

func (f frozen) Get(_ context.Context, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	f.view.DeepCopyInto(object.(*v1alpha1.ApiKey))
	return nil
}

// since tells whether the API server is of a minor version of Kubernetes 1, or of a newer one.
func since(minor int) bool {
	GinkgoHelper()
	clients, err := discovery.NewDiscoveryClientForConfig(plane.Admin)
	Expect(err).NotTo(HaveOccurred())
	version, err := clients.ServerVersion()
	Expect(err).NotTo(HaveOccurred())
	have, err := strconv.Atoi(version.Minor)
	Expect(err).NotTo(HaveOccurred())
	return have >= minor
}

// refusal is what the API server says when a rule refuses a value of a type: before 1.35 it named the type, and not the value
// (kubernetes#132798). The value is as it stands in the message, "" where it is not told.
func refusal(value, ofType, cure string) string {
	GinkgoHelper()
	if !since(35) {
		value = strconv.Quote(ofType)
	}
	if value == "" {
		return cure
	}
	return value + ": " + cure
}

func inNamespace(name string) client.ListOption { return client.InNamespace(name) }

func zero() *resource.Quantity { return resource.NewQuantity(0, resource.DecimalSI) }

// governed is a namespace for specs that rule the whole cluster. Its keys go with the spec, lest they be issued in another one once
// the rules are gone.
func governed() string {
	GinkgoHelper()
	ns := namespace()
	DeferCleanup(func() {
		// The API server ends a request after a minute, however many keys are left.
		Eventually(func() error { return admin.DeleteAllOf(ctx, &v1alpha1.ApiKey{}, client.InNamespace(ns)) }, 10*time.Minute).Should(Succeed())
	})
	return ns
}

// rule creates a role or a policy for the time of a spec.
func rule(object client.Object) {
	GinkgoHelper()
	create(object)
	DeferCleanup(func() { Expect(client.IgnoreNotFound(admin.Delete(ctx, object))).To(Succeed()) })
}

func condition(key *v1alpha1.ApiKey, conditionType string) *metav1.Condition {
	GinkgoHelper()
	return meta.FindStatusCondition(reread(key).Status.Conditions, conditionType)
}

// relabel sets a label of a namespace.
func relabel(namespace, name, value string) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, name, value)
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	Expect(admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

func request(name string) ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// adminKubeconfig is a file that lives as long as the spec.
func adminKubeconfig() string {
	GinkgoHelper()
	path := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(plane.AdminKubeconfig(path)).To(Succeed())
	return path
}
