//go:build e2e

// Package e2e proves the product as users run it: installed from its images into a cluster with a real node, called by real pods
// through a real nginx, and disturbed. `make e2e` runs it under test/kit/sealed; test/kit/node says what the cluster is made of.
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

	"github.com/apikey-operator/apikey-operator/test/kit/harness"
	"github.com/apikey-operator/apikey-operator/test/kit/node"
)

// Generous, since the machine may be busy: a pod is there in two seconds, and a deployment in ten.
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
	cluster *node.Node
	admin   client.Client
	clients *kubernetes.Clientset
	witness *harness.Witness
	images  map[string]string // by the name that manifests have
	report  table
)

func TestEndToEnd(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "A real cluster of one node")
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
	cluster, err = node.Start(ctx, logs)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return cluster.Stop() })
	report.add("the node is ready", "after %.1f s", time.Since(start).Seconds())

	admin, err = client.New(cluster.Admin, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	clients, err = kubernetes.NewForConfig(cluster.Admin)
	Expect(err).NotTo(HaveOccurred())
	start = time.Now()
	images = pushImages()
	report.add("images are built and pushed", "after %.1f s", time.Since(start).Seconds())
})

// In one container, since only those within one run in the order that they are written in.
var _ = Describe("The product", func() {
	Describe("installed", Ordered, ContinueOnFailure, installed)
	Describe("in use", Ordered, inUse)
})

var _ = AfterSuite(func() { report.print() })

// kubectl runs it as a cluster administrator does, in the repository's root folder.
func kubectl(args ...string) string {
	GinkgoHelper()
	out, err := cluster.RunKubectl(ctx, "", args...)
	if err != nil {
		Fail(fmt.Sprintf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out))
	}
	return out
}
