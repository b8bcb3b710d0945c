package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// guardedInterval is the time between two attempts of [ControlPlane.WaitGuarded].
const guardedInterval = 50 * time.Millisecond

// The namespace into which config/default installs the operator and the verifier, and their service accounts.
const (
	Namespace       = "apikey-operator-system"
	ServiceAccount  = "apikey-operator"
	VerifierAccount = "apikey-verifier"
)

// Install installs config/default as a cluster administrator does, with kubectl apply -k. It returns when the kinds are served and the
// admission policies are in force. The Deployments start no pods, because the control plane has no scheduler and no node.
func (c *ControlPlane) Install(ctx context.Context) error {
	if out, err := c.RunKubectl(ctx, "", "apply", "-k", filepath.Join(c.Root, "config", "default")); err != nil {
		return fmt.Errorf("install: %w\n%s", err, out)
	}
	out, err := c.RunKubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s",
		"-f", filepath.Join(c.Root, "config", "crd", "bases"))
	if err != nil {
		return fmt.Errorf("wait for the CRDs: %w\n%s", err, out)
	}
	return c.WaitGuarded(ctx, Namespace, ServiceAccount)
}

// WaitGuarded waits until each admission policy of config/policy refuses a request that it must refuse: the API server enforces a new
// policy only some time after its creation. The operator runs as the given service account, and each policy's name starts with the
// account's name.
func (c *ControlPlane) WaitGuarded(ctx context.Context, namespace, serviceAccount string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	admin, err := dynamic.NewForConfig(c.Admin)
	if err != nil {
		return err
	}
	asOperator := rest.CopyConfig(c.Admin)
	asOperator.Impersonate.UserName = "system:serviceaccount:" + namespace + ":" + serviceAccount
	operator, err := dynamic.NewForConfig(asOperator)
	if err != nil {
		return err
	}
	const name = "install-probe"
	keys := admin.Resource(v1alpha1.GroupVersion.WithResource("apikeys")).Namespace(namespace)
	if _, err := keys.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "ApiKey", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"roles": []any{"install.probe"}, "expiry": map[string]any{"never": true}},
	}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the probe key: %w", err)
	}
	dryRun := []string{metav1.DryRunAll}
	createSecret := func(as dynamic.Interface, kind string) error {
		_, err := as.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name}, "type": kind,
		}}, metav1.CreateOptions{DryRun: dryRun})
		return err
	}
	for _, probe := range []struct {
		policy  string
		request func() error
	}{
		{"-status", func() error {
			_, err := keys.Patch(ctx, name, types.MergePatchType, []byte(`{"status":{"tokenHint":"ak_"}}`), metav1.PatchOptions{DryRun: dryRun}, "status")
			return err
		}},
		{"-token-secrets", func() error { return createSecret(admin, "apikey-operator.io/token") }},
		{"-limits", func() error { return createSecret(operator, "Opaque") }},
	} {
		for {
			err := probe.request()
			if err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+serviceAccount+probe.policy+"'") {
				break
			}
			select {
			case <-ctx.Done():
				return errors.Join(fmt.Errorf("%s did not refuse a request that it must refuse: %w", serviceAccount+probe.policy, ctx.Err()), err)
			case <-time.After(guardedInterval):
			}
		}
	}
	if err := keys.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete the probe key: %w", err)
	}
	return nil
}

// RunKubectl runs kubectl as the administrator in the repository's root folder. It returns the combined output, also with an error.
func (c *ControlPlane) RunKubectl(ctx context.Context, input string, args ...string) (string, error) {
	kubeconfig := filepath.Join(c.dir, "admin.kubeconfig")
	if err := c.AdminKubeconfig(kubeconfig); err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, c.Kubectl(), append([]string{"--kubeconfig", kubeconfig}, args...)...)
	command.Dir = c.Root
	command.Stdin = strings.NewReader(input)
	out, err := command.CombinedOutput()
	return string(out), err
}

// Operator is a running apikey-operator process.
type Operator struct {
	*Process
	// Probes and Metrics are the base URLs of the two listeners.
	Probes, Metrics string
}

// StartOperator runs bin/apikey-operator as the operator's service account, with exactly the permissions of config/rbac. It returns when
// the operator is ready. args are appended to the command line. The log goes to out.
func (c *ControlPlane) StartOperator(ctx context.Context, out io.Writer, args ...string) (*Operator, error) {
	return c.StartOperatorAs(ctx, Namespace, ServiceAccount, out, args...)
}

// StartOperatorAs is like [ControlPlane.StartOperator], but uses the service account of another installation.
func (c *ControlPlane) StartOperatorAs(ctx context.Context, namespace, account string, out io.Writer, args ...string) (*Operator, error) {
	o, err := c.launchOperator(ctx, namespace, account, out, args)
	if err != nil {
		return nil, err
	}
	return o, o.WaitHTTP(ctx, o.Probes+"/readyz")
}

// LaunchOperator is like [ControlPlane.StartOperator], but returns without waiting for the operator to become ready.
func (c *ControlPlane) LaunchOperator(ctx context.Context, out io.Writer, args ...string) (*Operator, error) {
	return c.launchOperator(ctx, Namespace, ServiceAccount, out, args)
}

func (c *ControlPlane) launchOperator(ctx context.Context, namespace, account string, out io.Writer, args []string) (*Operator, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	o := &Operator{Probes: "http://" + addresses[0], Metrics: "https://" + addresses[1]}
	o.Process, err = c.start(ctx, "apikey-operator", namespace, account, out, append([]string{
		"--leader-elect-namespace=" + namespace,
		"--health-probe-bind-address=" + addresses[0],
		"--metrics-bind-address=" + addresses[1],
	}, args...))
	return o, err
}

// Verifier is a running apikey-verifier process.
type Verifier struct {
	*Process
	// HTTP, Probes and Metrics are base URLs of listeners. GRPC is a listener's address, as host:port.
	HTTP, GRPC, Probes, Metrics string
}

// VerifierAddresses are the addresses at which a verifier listens, as host:port.
type VerifierAddresses struct {
	HTTP, GRPC string
}

// FreeVerifierAddresses reserves addresses on loopback for a verifier. Use it when something must know them before the verifier starts.
func FreeVerifierAddresses() (VerifierAddresses, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return VerifierAddresses{}, err
	}
	return VerifierAddresses{HTTP: addresses[0], GRPC: addresses[1]}, nil
}

// StartVerifier runs bin/apikey-verifier as the verifier's service account, with exactly the permissions of config/verifier. It returns
// at once; the verifier is ready when Probes+"/readyz" answers 200. args are appended to the command line. The log goes to out.
func (c *ControlPlane) StartVerifier(ctx context.Context, out io.Writer, at VerifierAddresses, args ...string) (*Verifier, error) {
	return c.StartVerifierAs(ctx, Namespace, VerifierAccount, out, at, args...)
}

// StartVerifierAs is like [ControlPlane.StartVerifier], but uses the service account of another installation.
func (c *ControlPlane) StartVerifierAs(
	ctx context.Context, namespace, account string, out io.Writer, at VerifierAddresses, args ...string,
) (*Verifier, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	v := &Verifier{
		HTTP: "http://" + at.HTTP, GRPC: at.GRPC,
		Probes: "http://" + addresses[0], Metrics: "https://" + addresses[1],
	}
	v.Process, err = c.start(ctx, "apikey-verifier", namespace, account, out, append([]string{
		"--http-bind-address=" + at.HTTP,
		"--grpc-bind-address=" + at.GRPC,
		"--health-probe-bind-address=" + addresses[0],
		"--metrics-bind-address=" + addresses[1],
	}, args...))
	return v, err
}

// start runs a binary from bin/ with a kubeconfig of a service account.
func (c *ControlPlane) start(ctx context.Context, binary, namespace, account string, out io.Writer, args []string) (*Process, error) {
	kubeconfig := filepath.Join(c.dir, namespace+"."+account+".kubeconfig")
	// The token of an earlier start serves if the API server is away now. Otherwise it may be that of an account which was deleted.
	_, statErr := os.Stat(kubeconfig)
	if statErr != nil || c.listens(ctx) {
		if err := c.KubeconfigAs(ctx, namespace, account, kubeconfig); err != nil && statErr != nil {
			return nil, err
		}
	}
	args = append([]string{"--kubeconfig=" + kubeconfig}, args...)
	command := exec.Command(filepath.Join(cmp.Or(c.Bin, filepath.Join(c.Root, "bin")), binary), args...) //nolint:noctx // Process.Stop stops it
	command.Env = append(os.Environ(), "POD_NAMESPACE="+namespace)
	return StartProcess(command, out)
}

// listens reports whether something accepts connections at the API server's address.
func (c *ControlPlane) listens(ctx context.Context) bool {
	server, err := url.Parse(c.Admin.Host)
	if err != nil {
		return false
	}
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", server.Host)
	if err != nil {
		return false
	}
	_ = connection.Close()
	return true
}

func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		var err error
		if addresses[i], err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	return addresses, nil
}
