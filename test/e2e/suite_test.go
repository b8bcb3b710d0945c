//go:build e2e

// Package e2e tests the product as users run it: installed from its images into a cluster with a real node, called by real pods through a
// real nginx, and disturbed. `make e2e` runs it under test/kit/sealed. For the cluster, see test/kit/node.
package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
	"github.com/apikey-operator/apikey-operator/test/kit/node"
)

// patience is long because the machine may be busy. A pod usually takes two seconds to start, and a Deployment ten.
const patience = 3 * time.Minute

const (
	logs      = "../../bin/e2e/logs"
	overlays  = "../../bin/e2e/install"
	system    = "apikey-operator-system"
	shop      = "shop"
	imageTag  = "e2e"
	nginxName = "nginxinc/nginx-unprivileged"
)

var (
	ctx     context.Context
	root    string // of the repository
	cluster *node.Node
	admin   client.Client
	clients *kubernetes.Clientset
	witness *harness.Witness
	images  map[string]string // by the names that the manifests use
	report  table
)

func TestEndToEnd(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "A real cluster with one node")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(GinkgoLogr)
	SetDefaultEventuallyTimeout(patience)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	var cancel context.CancelFunc
	ctx, cancel = context.WithCancel(context.Background())
	DeferCleanup(cancel)

	Expect(os.RemoveAll(logs)).To(Succeed())
	start := time.Now()
	var err error
	root, err = controlplane.RepositoryRoot()
	Expect(err).NotTo(HaveOccurred())
	options := node.Options{Logs: logs, Sync: 5 * time.Second, Images: func(registry *node.Registry) error {
		defer GinkgoRecover()
		images = pushImages(registry)
		return nil
	}}
	if rotations > 1 {
		options.Sync = 0 // as in production
	}
	cluster, err = node.Start(ctx, options)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return cluster.Stop() })
	report.add("the node is ready, and images are pushed", "after %.1f s", time.Since(start).Seconds())

	admin, err = client.New(cluster.Admin, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	clients, err = kubernetes.NewForConfig(cluster.Admin)
	Expect(err).NotTo(HaveOccurred())
})

// All specs are in one container, because only specs within an ordered container run in the order of the code.
var _ = Describe("The product", func() {
	Describe("installed", Ordered, ContinueOnFailure, installed)
	Describe("in use", Ordered, inUse)
})

var _ = AfterSuite(func() { report.print() })

// kubectl runs kubectl as a cluster administrator in the repository's root folder, and returns its output.
func kubectl(args ...string) string {
	GinkgoHelper()
	out, err := cluster.RunKubectl(ctx, "", args...)
	if err != nil {
		Fail(fmt.Sprintf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out))
	}
	return out
}
