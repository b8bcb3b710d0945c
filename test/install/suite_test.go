// Package install tests every way to install the operator on real control planes: the manifests, the chart, upgrades and uninstalls. It is a
// module of its own, so that Helm's dependencies don't affect the versions of the product's dependencies.
package install

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// patience is long because the machine may be busy. Most waits take milliseconds.
const patience = 2 * time.Minute

// root is the repository's root folder, relative to this one.
const root = "../.."

var (
	ctx  context.Context
	helm string // the path of the helm binary
)

func TestInstall(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Installing, upgrading and uninstalling")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(GinkgoLogr)
	SetDefaultEventuallyTimeout(patience)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	var cancel context.CancelFunc
	ctx, cancel = context.WithCancel(context.Background())
	DeferCleanup(cancel)
	// go tool builds helm if the build cache doesn't have it.
	tool := exec.CommandContext(ctx, "go", "tool", "-n", "helm")
	tool.Env = append(os.Environ(), "CGO_ENABLED=0") // as everything else is built
	out, err := tool.Output()
	Expect(err).NotTo(HaveOccurred())
	helm = strings.TrimSpace(string(out))
})

// cluster is a control plane with an administrator's client.
type cluster struct {
	*controlplane.ControlPlane
	client.Client
}

// newCluster starts an empty control plane. It stops at the end of the container, or of the spec, that started it.
func newCluster() *cluster {
	GinkgoHelper()
	c := &cluster{}
	var err error
	c.ControlPlane, err = controlplane.Start(ctx, controlplane.Options{Logs: os.Getenv("CONTROLPLANE_LOGS")})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(c.Stop)
	scheme := harness.Scheme()
	Expect(apiextensionsv1.AddToScheme(scheme)).To(Succeed())
	c.Client, err = client.New(c.Admin, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	return c
}

func (c *cluster) namespace(name string) {
	GinkgoHelper()
	Expect(c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
}

// kubectl runs kubectl as an administrator in the repository's root folder, and returns its output.
func (c *cluster) kubectl(args ...string) string {
	GinkgoHelper()
	out, err := c.RunKubectl(ctx, "", args...)
	Expect(err).NotTo(HaveOccurred(), out)
	return out
}

func (c *cluster) exists(object client.Object) bool {
	GinkgoHelper()
	err := c.Get(ctx, client.ObjectKeyFromObject(object), object)
	if meta.IsNoMatchError(err) {
		return false
	}
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return !apierrors.IsNotFound(err)
}

// shell runs a block of docs/install.md as a reader would: in a folder, as an administrator, with kubectl and helm in PATH.
func (c *cluster) shell(folder, block string) string {
	GinkgoHelper()
	tools := GinkgoT().TempDir()
	Expect(os.Symlink(c.Kubectl(), filepath.Join(tools, "kubectl"))).To(Succeed())
	Expect(os.Symlink(helm, filepath.Join(tools, "helm"))).To(Succeed())
	kubeconfig := filepath.Join(tools, "kubeconfig")
	Expect(c.AdminKubeconfig(kubeconfig)).To(Succeed())
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", documented(block))
	command.Dir = folder
	command.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig, "HELM_CACHE_HOME="+tools,
		"HELM_CONFIG_HOME="+tools, "HELM_DATA_HOME="+tools)
	out, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s\n%s", documented(block), out)
	return string(out)
}

// documented returns the block of docs/install.md that starts with ```sh and a name.
func documented(name string) string {
	GinkgoHelper()
	page, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	Expect(err).NotTo(HaveOccurred())
	match := regexp.MustCompile("(?s)\n```sh " + name + "\n(.*?)\n```").FindSubmatch(page)
	Expect(match).NotTo(BeNil(), "docs/install.md has no block %q", name)
	return string(match[1])
}

// checkout copies what a release contains for installing to a new folder, and changes it to stand for an earlier release.
func checkout(change func(folder string)) string {
	GinkgoHelper()
	folder := GinkgoT().TempDir()
	for _, part := range []string{"config", "charts"} {
		Expect(os.CopyFS(filepath.Join(folder, part), os.DirFS(filepath.Join(root, part)))).To(Succeed())
	}
	change(folder)
	return folder
}

// withoutDisplayName removes the field displayName from a CRD, to stand for an earlier release that didn't have it.
func withoutDisplayName(path string) {
	GinkgoHelper()
	text, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	crd := &apiextensionsv1.CustomResourceDefinition{}
	Expect(yaml.Unmarshal(text, crd)).To(Succeed())
	spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	Expect(spec.Properties).To(HaveKey("displayName"))
	delete(spec.Properties, "displayName")
	spec.XValidations = nil // the rule that makes the spec immutable names all fields
	crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"] = spec
	crd.Spec.Versions[0].AdditionalPrinterColumns = nil // one of them shows the field
	text, err = yaml.Marshal(crd)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(path, text, 0o600)).To(Succeed())
}

// hasDisplayName reports whether the installed CRD has the field displayName.
func (c *cluster) hasDisplayName() bool {
	GinkgoHelper()
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "apikeys.apikey-operator.io"}}
	Expect(c.Get(ctx, client.ObjectKeyFromObject(crd), crd)).To(Succeed())
	_, ok := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["displayName"]
	return ok
}

func (c *cluster) waitForKinds() {
	GinkgoHelper()
	c.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/apikeys.apikey-operator.io", "crd/apiroles.apikey-operator.io",
		"crd/apikeypolicies.apikey-operator.io")
}

// issued is the part of a key's state that an upgrade or uninstall must never change.
type issued struct {
	UID, Hash, Reason, SecretUID, SecretVersion string
}

// stateOf reads a key and its token Secret. It keeps no token, so that a failure prints none.
func (c *cluster) stateOf(key *v1alpha1.ApiKey) issued {
	GinkgoHelper()
	found := &v1alpha1.ApiKey{}
	Expect(c.Get(ctx, client.ObjectKeyFromObject(key), found)).To(Succeed())
	secret := &corev1.Secret{}
	Expect(c.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}, secret)).To(Succeed())
	return issued{
		UID: string(found.UID), Hash: found.Status.Hash, Reason: string(reason(found)), SecretUID: string(secret.UID),
		SecretVersion: secret.ResourceVersion,
	}
}

func (c *cluster) reasonOf(key *v1alpha1.ApiKey) func() v1alpha1.Reason {
	return func() v1alpha1.Reason {
		found := &v1alpha1.ApiKey{}
		if err := c.Get(ctx, client.ObjectKeyFromObject(key), found); err != nil {
			return v1alpha1.Reason(err.Error())
		}
		return reason(found)
	}
}

func reason(key *v1alpha1.ApiKey) v1alpha1.Reason {
	if ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return v1alpha1.Reason(ready.Reason)
	}
	return ""
}

// startOperator runs the operator's binary as the Deployment in the cluster specifies: with its arguments, as its service account.
func (c *cluster) startOperator(namespace, name string) *controlplane.Operator {
	GinkgoHelper()
	out := c.kubectl("-n", namespace, "get", "deployment", name, "-o",
		`go-template={{with .spec.template.spec}}{{.serviceAccountName}} {{range (index .containers 0).args}}{{.}} {{end}}{{end}}`)
	words := strings.Fields(out)
	operator, err := c.StartOperatorAs(ctx, namespace, words[0], GinkgoWriter, words[1:]...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { _ = operator.Stop() }) // a spec that succeeds has already stopped it and checked the error
	return operator
}

// thirdParty installs a CRD from another project's Go module.
func (c *cluster) thirdParty(module, path string) {
	GinkgoHelper()
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	command.Dir = filepath.Join(root, "hack", "crds")
	out, err := command.Output()
	Expect(err).NotTo(HaveOccurred())
	var found struct{ Dir string }
	Expect(json.Unmarshal(out, &found)).To(Succeed())
	c.kubectl("apply", "--server-side", "-f", filepath.Join(found.Dir, path))
}

func describe(object client.Object) string {
	return fmt.Sprintf("%s %s/%s", object.GetObjectKind().GroupVersionKind().Kind, object.GetNamespace(), object.GetName())
}

// makeInstaller writes the files of an installer into a folder, as `make installer` does.
func makeInstaller(folder string, settings ...string) {
	GinkgoHelper()
	command := exec.CommandContext(ctx, filepath.Join(root, "hack", "installer"), folder)
	command.Env = append(os.Environ(), settings...)
	out, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}
