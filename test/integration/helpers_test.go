package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// frozen is a client with a stale cache: every Get returns the ApiKey as it was.
type frozen struct {
	client.Client
	view *v1alpha1.ApiKey
}

func (f frozen) Get(_ context.Context, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	f.view.DeepCopyInto(object.(*v1alpha1.ApiKey))
	return nil
}

// since reports whether the API server is of Kubernetes 1.minor or newer.
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

// refusal returns the API server's message when a validation rule refuses a value. Before 1.35, the message named the type instead of the
// value (kubernetes#132798). Pass the value as the message shows it, or "" if newer servers don't show it.
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

// governed returns a namespace for specs whose roles or policies affect the whole cluster. Its keys are deleted at the end of the spec, or
// they would be issued during another one.
func governed() string {
	GinkgoHelper()
	ns := namespace()
	DeferCleanup(func() {
		// The API server aborts a request after a minute, so one request may not delete all keys.
		Eventually(func() error { return admin.DeleteAllOf(ctx, &v1alpha1.ApiKey{}, client.InNamespace(ns)) }, 10*time.Minute).Should(Succeed())
	})
	return ns
}

// rule creates a role, a policy or another cluster-scoped object until the end of the spec.
func rule(object client.Object) {
	GinkgoHelper()
	create(object)
	DeferCleanup(func() { Expect(client.IgnoreNotFound(admin.Delete(ctx, object))).To(Succeed()) })
}

// running starts a manager and returns a function that stops it. At the end of the spec, the manager is stopped in any case.
func running(o harness.Options) (stop func()) {
	GinkgoHelper()
	m, err := harness.StartManager(o, workers, "")
	Expect(err).NotTo(HaveOccurred())
	stop = sync.OnceFunc(func() { Expect(m.Stop()).To(Succeed()) })
	DeferCleanup(stop)
	return stop
}

func condition(key *v1alpha1.ApiKey, conditionType string) *metav1.Condition {
	GinkgoHelper()
	return meta.FindStatusCondition(reread(key).Status.Conditions, conditionType)
}

// eventsIn returns the events of a namespace, each as its type, its reason and its message.
func eventsIn(namespace string) []string {
	GinkgoHelper()
	told := &corev1.EventList{}
	Expect(admin.List(ctx, told, client.InNamespace(namespace))).To(Succeed())
	notes := make([]string, 0, len(told.Items))
	for _, event := range told.Items {
		notes = append(notes, event.Type+" "+event.Reason+": "+event.Message)
	}
	return notes
}

// relabel sets a label on a namespace.
func relabel(namespace, name, value string) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, name, value)
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	Expect(admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// number returns the value of an environment variable, or usual if it is not set. Longer runs set it.
func number(variable string, usual int) int {
	GinkgoHelper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	Expect(err).NotTo(HaveOccurred(), variable)
	return n
}

func request(name string) ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// adminKubeconfig returns the path of an administrator's kubeconfig that exists until the end of the spec.
func adminKubeconfig() string {
	GinkgoHelper()
	path := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(plane.AdminKubeconfig(path)).To(Succeed())
	return path
}
