// Package cli tests kubectl-apikey as people use it: the built binary, through pipes and on a terminal, against a real API server with a
// real operator.
package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// patience is long because the machine may be busy. Most waits take milliseconds.
const patience = 2 * time.Minute

const role = "org.permission.order.read"

var (
	ctx      context.Context
	plane    *controlplane.ControlPlane
	admin    client.Client
	operator *controlplane.Operator
	log      = &harness.Record{}
	// root is an administrator of the cluster.
	root *person

	namespaces atomic.Int64
)

func TestCLI(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "kubectl apikey")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(GinkgoLogr)
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
	startOperator()
	DeferCleanup(func() error { return operator.Stop() })

	kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(plane.AdminKubeconfig(kubeconfig)).To(Succeed())
	root = &person{kubeconfig: kubeconfig}
})

// No token may be on standard error or in the operator's log.
var _ = AfterSuite(func() {
	if plane != nil {
		_, leaks := log.Leaks()
		Expect(leaks).To(BeZero(), "tokens where they must not be")
	}
})

func startOperator() {
	GinkgoHelper()
	var err error
	// Without a lease to lose: an operator that can't renew it on a busy machine ends, and nothing starts it again here.
	operator, err = plane.StartOperator(ctx, log, "--leader-elect=false")
	Expect(err).NotTo(HaveOccurred())
}

// withoutOperator stops the operator until the end of the spec.
func withoutOperator() {
	GinkgoHelper()
	Expect(operator.Stop()).To(Succeed())
	DeferCleanup(startOperator)
}

// person is a user who runs the command.
type person struct {
	kubeconfig string
	// dir is where the command runs, or empty.
	dir string
}

// result is what a command did. Its output may hold a token.
type result struct {
	out, err string
	code     int
}

var tokens = regexp.MustCompile(`[a-z][a-z0-9]+_[0-9A-Za-z]{20,}`)

// String hides tokens, so that the message of a failure shows none.
func (r result) String() string {
	return fmt.Sprintf("exit code %d\n--- standard output\n%s--- standard error\n%s", r.code, tokens.ReplaceAllString(r.out, "<token>"),
		tokens.ReplaceAllString(r.err, "<token>"))
}

// GomegaString makes Gomega print a result like this, too.
func (r result) GomegaString() string { return r.String() }

// command prepares the command for a person.
func (p *person) command(args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(plane.Root, "bin", "kubectl-apikey"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig)
	command.Dir = p.dir
	return command
}

// run runs the command with pipes.
func (p *person) run(args ...string) result {
	GinkgoHelper()
	return p.feed("", args...)
}

// feed runs the command with a text on standard input.
func (p *person) feed(input string, args ...string) result {
	GinkgoHelper()
	command := p.command(args...)
	command.Stdin = strings.NewReader(input)
	return finish(command)
}

func finish(command *exec.Cmd) result {
	GinkgoHelper()
	var out, stderr bytes.Buffer
	command.Stdout, command.Stderr = &out, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		Expect(err).NotTo(HaveOccurred())
	}
	_, _ = log.Write(stderr.Bytes())
	return result{out: out.String(), err: stderr.String(), code: command.ProcessState.ExitCode()}
}

// must runs the command, which has to succeed, and returns standard output.
func (p *person) must(args ...string) string {
	GinkgoHelper()
	r := p.run(args...)
	expectCode(r, 0)
	return r.out
}

func expectCode(r result, code int) {
	GinkgoHelper()
	Expect(r.code).To(Equal(code), "%s", r)
}

// create creates a key as a person does, and returns its token.
func (p *person) create(namespace, name string, args ...string) string {
	GinkgoHelper()
	r := p.run(append([]string{"create", name, "-n", namespace, "--role", role, "--expires", "90d"}, args...)...)
	expectCode(r, 0)
	text, found := strings.CutSuffix(r.out, "\n")
	Expect(found).To(BeTrue())
	_, err := token.Parse(text)
	Expect(err).NotTo(HaveOccurred(), "standard output must hold a token and nothing else")
	log.Remember(text)
	return text
}

func namespace() string {
	GinkgoHelper()
	name := fmt.Sprintf("test-%d", namespaces.Add(1))
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	return name
}

// having returns a person with a set of rights in a namespace, and a set of rights in the whole cluster.
func having(namespace string, local, global []rbacv1.PolicyRule) *person {
	GinkgoHelper()
	name := fmt.Sprintf("person-%d", namespaces.Add(1))
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: name}}
	Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta})).To(Succeed())
	Expect(admin.Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: local})).To(Succeed())
	Expect(admin.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	})).To(Succeed())
	everywhere := metav1.ObjectMeta{Name: namespace + "-" + name}
	Expect(admin.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: everywhere, Rules: global})).To(Succeed())
	Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: everywhere, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: everywhere.Name},
	})).To(Succeed())
	kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(plane.KubeconfigAs(ctx, namespace, name, kubeconfig)).To(Succeed())
	p := &person{kubeconfig: kubeconfig}
	// The API server learns of a binding some milliseconds later.
	if len(local)+len(global) > 0 {
		rule, where := append(local, global...)[0], []string{"-n", namespace}
		if len(local) == 0 {
			where = []string{"-A"}
		}
		resource := rule.Resources[0]
		if rule.APIGroups[0] != "" {
			resource += "." + rule.APIGroups[0]
		}
		if len(rule.ResourceNames) > 0 {
			resource += "/" + rule.ResourceNames[0]
		}
		Eventually(func() error {
			return exec.CommandContext(ctx, plane.Kubectl(), append([]string{
				"--kubeconfig", kubeconfig, "auth", "can-i", rule.Verbs[0], resource, "-q",
			}, where...)...).Run()
		}).Should(Succeed())
	}
	return p
}

// on returns a rule about the product's own kinds.
func on(resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{resource}, Verbs: verbs}
}

// onCore returns a rule about a kind of Kubernetes.
func onCore(resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{resource}, Verbs: verbs}
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

// file writes a text to a file that only its owner can read, and returns its path.
func file(text string) string {
	GinkgoHelper()
	path := filepath.Join(GinkgoT().TempDir(), "file")
	Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
	return path
}

func digestOf(text string) string {
	GinkgoHelper()
	found, err := token.Parse(text)
	Expect(err).NotTo(HaveOccurred())
	return found.Digest().String()
}
