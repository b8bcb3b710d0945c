// Package controlplane starts and stops a real control plane on loopback: etcd, kube-apiserver and kube-controller-manager, with
// its garbage collector. Tests, the demo and the benchmarks use it; the product never does.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// assetsVariable is envtest's name for the folder of control plane binaries.
const assetsVariable = "KUBEBUILDER_ASSETS"

// Options of a control plane. The zero value is good.
type Options struct {
	// Logs is where each component's log goes, in a file of its own; "" means nowhere.
	Logs string
	// APIServer are further arguments of kube-apiserver, by their names without dashes.
	APIServer map[string]string
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	// Admin is a configuration of a user in system:masters, without client-side limits.
	Admin *rest.Config
	// Root is the repository's root folder.
	Root string

	plane      *envtest.ControlPlane
	controller *exec.Cmd
	exited     chan struct{} // closed once the controller manager has
	dir        string
	logs       []io.Closer
}

// Start starts a control plane and returns once its API server is ready and its garbage collector runs. The binaries are those of
// KUBEBUILDER_ASSETS where it is set, and of bin/kube; hack/kube/build makes what is missing.
func Start(ctx context.Context, options Options) (_ *ControlPlane, err error) {
	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{Root: root, exited: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if c.dir, err = os.MkdirTemp("", "apikey-controlplane-"); err != nil {
		return nil, err
	}

	c.plane = &envtest.ControlPlane{
		Etcd: &envtest.Etcd{
			Path:         c.binary("etcd"),
			StartTimeout: time.Minute,
			StopTimeout:  time.Minute,
			DataDir:      filepath.Join(c.dir, "etcd"),
		},
		KubectlPath: c.Kubectl(),
	}
	if err := os.Mkdir(c.plane.Etcd.DataDir, 0o700); err != nil {
		return nil, err
	}
	server := c.plane.GetAPIServer()
	server.Path = c.binary("kube-apiserver")
	server.StartTimeout, server.StopTimeout = time.Minute, time.Minute
	server.Err, err = c.log(options.Logs, "kube-apiserver.log")
	if err != nil {
		return nil, err
	}
	server.Configure().
		// envtest turns it off since it has no controller manager; here there is one.
		Disable("disable-admission-plugins").
		// A cluster that has this plugin on refuses owner references that need more than the operator may.
		Set("enable-admission-plugins", "ServiceAccount", "OwnerReferencesPermissionEnforcement")
	for name, value := range options.APIServer {
		server.Configure().Set(name, value)
	}
	if err := c.plane.Start(); err != nil {
		return nil, fmt.Errorf("start etcd and kube-apiserver (has `make kube` been run?): %w", err)
	}
	admin, err := c.plane.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, &rest.Config{QPS: -1})
	if err != nil {
		return nil, err
	}
	c.Admin = admin.Config()
	if err := c.startControllerManager(ctx, options.Logs); err != nil {
		return nil, err
	}
	return c, nil
}

// Stop ends what was started, newest first, and removes its files.
func (c *ControlPlane) Stop() error {
	var errs []error
	if c.controller != nil {
		errs = append(errs, c.controller.Process.Signal(syscall.SIGTERM))
		select {
		case <-c.exited:
		case <-time.After(20 * time.Second):
			errs = append(errs, c.controller.Process.Kill())
			<-c.exited
		}
	}
	if c.plane != nil {
		errs = append(errs, c.plane.Stop())
	}
	for _, log := range c.logs {
		errs = append(errs, log.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// Etcd is the base URL of etcd.
func (c *ControlPlane) Etcd() string { return c.plane.Etcd.URL.String() }

// Kubectl is the path of the kubectl that matches the API server.
func (c *ControlPlane) Kubectl() string { return c.binary("kubectl") }

// AdminKubeconfig writes a kubeconfig of the admin user to a file.
func (c *ControlPlane) AdminKubeconfig(path string) error { return WriteKubeconfig(c.Admin, path) }

// As is a configuration of a service account, as a pod of it would have. The token lives for a day.
func (c *ControlPlane) As(ctx context.Context, namespace, serviceAccount string) (*rest.Config, error) {
	clients, err := kubernetes.NewForConfig(c.Admin)
	if err != nil {
		return nil, err
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](24 * 60 * 60)}}
	answer, err := clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, serviceAccount, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, serviceAccount, err)
	}
	config := rest.AnonymousClientConfig(c.Admin)
	config.BearerToken = answer.Status.Token
	return config, nil
}

// KubeconfigAs writes a kubeconfig of a service account to a file.
func (c *ControlPlane) KubeconfigAs(ctx context.Context, namespace, serviceAccount, path string) error {
	config, err := c.As(ctx, namespace, serviceAccount)
	if err != nil {
		return err
	}
	return WriteKubeconfig(config, path)
}

func (c *ControlPlane) startControllerManager(ctx context.Context, logs string) error {
	kubeconfig := filepath.Join(c.dir, "controller-manager.kubeconfig")
	if err := c.AdminKubeconfig(kubeconfig); err != nil {
		return err
	}
	ca := filepath.Join(c.dir, "ca.crt")
	if err := os.WriteFile(ca, c.Admin.CAData, 0o600); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	c.controller = exec.Command(c.binary("kube-controller-manager"), //nolint:noctx // stopped by Stop, after what depends on it
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--service-account-private-key-file="+filepath.Join(c.plane.APIServer.CertDir, "sa-signer.key"),
		"--root-ca-file="+ca,
		"--use-service-account-credentials",
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--secure-port="+strconv.Itoa(port),
		"--cert-dir="+c.dir,
	)
	// A group of its own, so that Ctrl-C in a terminal stops things in order and not all at once.
	c.controller.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.controller.Stderr, err = c.log(logs, "kube-controller-manager.log"); err != nil {
		return err
	}
	if err := c.controller.Start(); err != nil {
		c.controller = nil
		return fmt.Errorf("start kube-controller-manager: %w", err)
	}
	go func() {
		_ = c.controller.Wait() // it exits with a failure when it is told to stop
		close(c.exited)
	}()
	return c.waitForControllers(ctx)
}

// waitForControllers waits until the service account controller is at work; all others start with it.
func (c *ControlPlane) waitForControllers(ctx context.Context) error {
	clients, err := kubernetes.NewForConfig(c.Admin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if _, err := clients.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err == nil {
			return nil
		}
		select {
		case <-c.exited:
			return errors.New("kube-controller-manager stopped before it was at work; its log says why")
		case <-ctx.Done():
			return fmt.Errorf("kube-controller-manager is not at work: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// binary is the path of a control plane binary: from KUBEBUILDER_ASSETS where it has one, else from bin/kube.
func (c *ControlPlane) binary(name string) string {
	if assets := os.Getenv(assetsVariable); assets != "" {
		path := filepath.Join(assets, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return filepath.Join(c.Root, "bin", "kube", name)
}

func (c *ControlPlane) log(folder, name string) (io.Writer, error) {
	if folder == "" {
		return io.Discard, nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(folder, name))
	if err != nil {
		return nil, err
	}
	c.logs = append(c.logs, file)
	return file, nil
}

// WriteKubeconfig writes a configuration to a file, for kubectl and for our binaries.
func WriteKubeconfig(config *rest.Config, path string) error {
	const name = "local"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server: config.Host, CertificateAuthorityData: config.CAData,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{name: {
			ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
		}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, path)
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	if err != nil {
		return 0, err
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("no TCP address: %v", listener.Addr())
	}
	return address.Port, listener.Close()
}

// repositoryRoot is the nearest folder upwards that holds the product's PROJECT file.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "PROJECT")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside the repository: no PROJECT file upwards of the working folder")
		}
		dir = parent
	}
}
