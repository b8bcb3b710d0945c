// Package controlplane starts and stops a real control plane on loopback: etcd, kube-apiserver and Kubernetes' controllers, with the
// garbage collector. Tests, the demo and the benchmarks use it; the product never does.
package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// assetsVariable is envtest's name for the folder of control plane binaries.
const assetsVariable = "KUBEBUILDER_ASSETS"

// startPatience is how long each process may take to be at work. On a machine with nothing else to do it takes seconds.
const startPatience = 3 * time.Minute

// accountPatience is how long a service account is waited for.
const accountPatience = time.Minute

// Options of a control plane. The zero value is good.
type Options struct {
	// Logs is where each component's log goes, in a file of its own; "" means nowhere.
	Logs string
	// APIServer are further arguments of kube-apiserver, by their names without dashes.
	APIServer map[string]string
	// Address is an IP address of this machine that the API server listens on, at port 6443, for pods that can't reach loopback; ""
	// means loopback, at any free port.
	Address string
	// AllControllers runs kube-controller-manager itself, as a node needs it. Otherwise those of its controllers run that a control plane
	// without nodes has use for: hack/kube/controlplane/controllers lists them.
	AllControllers bool
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	// Admin is a configuration of a user in system:masters, without client-side limits.
	Admin *rest.Config
	// Root is the repository's root folder.
	Root string

	plane      *envtest.ControlPlane
	controller *exec.Cmd
	exited     chan struct{} // closed once the controllers have
	dir        string
	logs       []io.Closer
}

// Start starts a control plane and returns once its API server is ready and its controllers run. The binaries are those of
// KUBEBUILDER_ASSETS where it is set, and of bin/kube; hack/kube makes what is missing.
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
			Path:         c.Binary("etcd"),
			StartTimeout: startPatience,
			StopTimeout:  time.Minute,
			DataDir:      filepath.Join(c.dir, "etcd"),
		},
		KubectlPath: c.Kubectl(),
	}
	if err := os.Mkdir(c.plane.Etcd.DataDir, 0o700); err != nil {
		return nil, err
	}
	server := c.plane.GetAPIServer()
	server.Path = c.Binary("kube-apiserver")
	// envtest removes a folder of its own when the API server stops, and with it what a restart needs.
	server.CertDir = filepath.Join(c.dir, "certs")
	if err := os.Mkdir(server.CertDir, 0o700); err != nil {
		return nil, err
	}
	// envtest would choose ports that any connection may take before they are listened on.
	etcd, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	c.plane.Etcd.URL = &url.URL{Scheme: "http", Host: etcd}
	if server.Address, server.Port, err = apiServerAddress(options); err != nil {
		return nil, err
	}
	if options.Address != "" {
		if server.CA, err = writeCertificates(server.CertDir, options.Address); err != nil {
			return nil, err
		}
	}
	server.StartTimeout, server.StopTimeout = startPatience, time.Minute
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
	if c.Admin, err = c.User("admin", "system:masters"); err != nil {
		return nil, err
	}
	if err := c.startControllers(ctx, options.AllControllers, options.Logs); err != nil {
		return nil, err
	}
	return c, nil
}

func apiServerAddress(options Options) (host, port string, err error) {
	if options.Address != "" {
		return options.Address, "6443", nil
	}
	address, err := FreeAddress()
	if err != nil {
		return "", "", err
	}
	return net.SplitHostPort(address)
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

// User is a configuration of a user with a client certificate, without client-side limits.
func (c *ControlPlane) User(name string, groups ...string) (*rest.Config, error) {
	user, err := c.plane.AddUser(envtest.User{Name: name, Groups: groups}, &rest.Config{QPS: -1})
	if err != nil {
		return nil, fmt.Errorf("client certificate of %s: %w", name, err)
	}
	return user.Config(), nil
}

// KillAPIServer ends the API server and nothing else, as the kernel does when memory is short, and returns once it is gone.
func (c *ControlPlane) KillAPIServer(ctx context.Context) error {
	pid, err := c.apiServerPid()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill kube-apiserver: %w", err)
	}
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("kube-apiserver is still there after it was killed: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// apiServerPid finds our API server among the processes; envtest keeps it to itself.
func (c *ControlPlane) apiServerPid() (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	ours := fmt.Appendf(nil, "\nPPid:\t%d\n", os.Getpid())
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(status, ours) {
			continue // it has ended meanwhile, or is not our child
		}
		dir := filepath.Dir(file)
		if path, err := os.Readlink(filepath.Join(dir, "exe")); err == nil && filepath.Base(path) == "kube-apiserver" {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, errors.New("no kube-apiserver runs that was started here")
}

// StartAPIServer starts it again, on the same etcd, address and certificates, and returns once it is ready.
func (c *ControlPlane) StartAPIServer() error { return c.plane.APIServer.Start() }

// Etcd is the base URL of etcd.
func (c *ControlPlane) Etcd() string { return c.plane.Etcd.URL.String() }

// Kubectl is the path of the kubectl that was made for the API server; where none was, of the one of PATH.
func (c *ControlPlane) Kubectl() string {
	path := c.Binary("kubectl")
	if _, err := os.Stat(path); err != nil {
		if found, err := exec.LookPath("kubectl"); err == nil {
			return found
		}
	}
	return path
}

// AdminKubeconfig writes a kubeconfig of the admin user to a file.
func (c *ControlPlane) AdminKubeconfig(path string) error { return WriteKubeconfig(c.Admin, path) }

// As is a configuration of a service account, as a pod of it would have. The token lives for a day.
func (c *ControlPlane) As(ctx context.Context, namespace, serviceAccount string) (*rest.Config, error) {
	clients, err := kubernetes.NewForConfig(c.Admin)
	if err != nil {
		return nil, err
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](24 * 60 * 60)}}
	var answer *authenticationv1.TokenRequest
	var missing error
	// The controller manager makes a namespace's default account a moment after the namespace.
	if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, accountPatience, true, func(ctx context.Context) (bool, error) {
		answer, err = clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, serviceAccount, request, metav1.CreateOptions{})
		if apierrors.IsNotFound(err) {
			missing = err
			return false, nil
		}
		return true, err
	}); err != nil {
		if wait.Interrupted(err) {
			err = errors.Join(err, missing)
		}
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

func (c *ControlPlane) startControllers(ctx context.Context, all bool, logs string) error {
	kubeconfig := filepath.Join(c.dir, "controllers.kubeconfig")
	if err := c.AdminKubeconfig(kubeconfig); err != nil {
		return err
	}
	ca := filepath.Join(c.dir, "ca.crt")
	if err := os.WriteFile(ca, c.Admin.CAData, 0o600); err != nil {
		return err
	}
	name, args := "controllers", []string{
		"--kubeconfig=" + kubeconfig,
		"--root-ca-file=" + ca,
		// A quota on a kind that was not known yet when it came is looked at again only then; usual are five minutes.
		"--resource-quota-sync-period=5s",
	}
	if all {
		port, err := freePort()
		if err != nil {
			return err
		}
		name = "kube-controller-manager"
		args = append(args,
			"--authentication-kubeconfig="+kubeconfig,
			"--authorization-kubeconfig="+kubeconfig,
			"--service-account-private-key-file="+filepath.Join(c.plane.APIServer.CertDir, "sa-signer.key"),
			"--use-service-account-credentials",
			"--leader-elect=false",
			"--bind-address=127.0.0.1",
			"--secure-port="+strconv.Itoa(port),
			"--cert-dir="+c.dir,
		)
	} else {
		// A kind that is new is looked for more often than usual: what hangs on it, such as the deletion of what it owns, is waited for.
		args = append(args, "--discovery-period=5s")
	}
	c.controller = exec.Command(c.Binary(name), args...) //nolint:noctx // stopped by Stop, after what depends on it
	// A group of its own, so that Ctrl-C in a terminal stops things in order and not all at once.
	c.controller.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if c.controller.Stderr, err = c.log(logs, name+".log"); err != nil {
		return err
	}
	if err := c.controller.Start(); err != nil {
		c.controller = nil
		return fmt.Errorf("start %s (has `make kube` been run?): %w", name, err)
	}
	go func() {
		_ = c.controller.Wait() // kube-controller-manager exits with a failure when it is told to stop
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
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		if _, err := clients.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err == nil {
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("%s stopped before it was at work; its log says why", filepath.Base(c.controller.Path))
		case <-ctx.Done():
			return fmt.Errorf("%s is not at work: %w", filepath.Base(c.controller.Path), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Binary is the path of a binary that hack/kube makes: from KUBEBUILDER_ASSETS where it has one, else from bin/kube.
func (c *ControlPlane) Binary(name string) string {
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

// writeCertificates writes, under envtest's names, the API server's certificate for an address and for the Service kubernetes, which
// envtest's own is not good for, and the pair that signs service accounts' tokens. It returns the certificate of the authority.
func writeCertificates(folder, address string) ([]byte, error) {
	// The first address of envtest's service-cluster-ip-range.
	ips := []net.IP{net.ParseIP(address), net.IPv4(10, 0, 0, 1)}
	serving, key, err := certutil.GenerateSelfSignedCertKey("localhost", ips, []string{"kubernetes.default.svc"})
	if err != nil {
		return nil, err
	}
	signer, signerKey, err := certutil.GenerateSelfSignedCertKey("sa-signer", nil, nil)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"apiserver.crt": serving, "apiserver.key": key, "sa-signer.crt": signer, "sa-signer.key": signerKey,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	chain, err := certutil.ParseCertsPEM(serving)
	if err != nil {
		return nil, err
	}
	return certutil.EncodeCertificates(chain[len(chain)-1])
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
