// Package controlplane starts and stops a real control plane on loopback: etcd, kube-apiserver and the Kubernetes controllers, including
// the garbage collector. Tests, the demo and the benchmarks use it; the product never does.
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

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// assetsVariable is envtest's name for the folder of control plane binaries.
const assetsVariable = "KUBEBUILDER_ASSETS"

// startPatience is how long each process may take to become ready. On an idle machine that takes seconds.
const startPatience = 3 * time.Minute

// Options configure a control plane. The zero value is usable.
type Options struct {
	// Logs is the folder for the components' logs, one file each. If it is empty, the logs are discarded.
	Logs string
	// APIServer holds additional arguments of kube-apiserver by name, without the leading dashes.
	APIServer map[string]string
	// Address is an IP address of this machine for the API server to listen on, at port 6443. Set it when pods that can't reach
	// loopback must reach the API server. If it is empty, the API server listens on loopback at any free port.
	Address string
	// AllControllers runs kube-controller-manager, which a node needs. Otherwise only the controllers run that a control plane without
	// nodes needs; hack/kube/controlplane/controllers lists them.
	AllControllers bool

	// data is a folder with the data that etcd starts with; see [StartInstalled]. If it is empty, etcd starts with nothing.
	data string
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	// Admin connects as a user in system:masters, without client-side rate limits.
	Admin *rest.Config
	// Root is the path of the repository's root folder.
	Root string
	// Bin is the folder of the product's binaries: bin in Root, unless it is set.
	Bin string

	plane      *envtest.ControlPlane
	controller *exec.Cmd
	exited     chan struct{} // closed once the controllers have exited
	dir        string
	logs       []io.Closer
}

// Start starts a control plane and returns when its API server is ready and its controllers run. It takes the binaries from
// KUBEBUILDER_ASSETS and from bin/kube; see [ControlPlane.Binary]. On an error, it stops what it has started.
func Start(ctx context.Context, options Options) (_ *ControlPlane, err error) {
	root, err := RepositoryRoot()
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
	if options.data != "" {
		if err := copyData(ctx, options.data, c.plane.Etcd.DataDir); err != nil {
			return nil, err
		}
	}
	server := c.plane.GetAPIServer()
	server.Path = c.Binary("kube-apiserver")
	// envtest deletes a folder that it made itself when the API server stops, but a restart needs the certificates.
	server.CertDir = filepath.Join(c.dir, "certs")
	if err := os.Mkdir(server.CertDir, 0o700); err != nil {
		return nil, err
	}
	// envtest chooses ports that any connection may take before the servers listen on them.
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
		// envtest disables ServiceAccount because it runs no controller manager. This control plane runs one.
		Disable("disable-admission-plugins").
		// In a cluster with this plugin, owner references must not need more permissions than the operator has.
		Set("enable-admission-plugins", "ServiceAccount", "OwnerReferencesPermissionEnforcement")
	for name, value := range options.APIServer {
		server.Configure().Set(name, value)
	}
	if err := c.plane.Start(); err != nil {
		return nil, fmt.Errorf("start etcd and kube-apiserver (did you run `make kube`?): %w", err)
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

// Stop stops the processes, newest first, and removes their files.
func (c *ControlPlane) Stop() error {
	errs := []error{c.stopProcesses()}
	for _, log := range c.logs {
		errs = append(errs, log.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// stopProcesses stops the processes that run, newest first.
func (c *ControlPlane) stopProcesses() error {
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
	c.controller, c.plane = nil, nil
	return errors.Join(errs...)
}

// User is a configuration of a user with a client certificate, without client-side limits.
func (c *ControlPlane) User(name string, groups ...string) (*rest.Config, error) {
	user, err := c.plane.AddUser(envtest.User{Name: name, Groups: groups}, &rest.Config{QPS: -1})
	if err != nil {
		return nil, fmt.Errorf("client certificate of %s: %w", name, err)
	}
	return user.Config(), nil
}

// The components that can be signalled, killed and started again.
const (
	APIServer = "kube-apiserver"
	EtcdName  = "etcd"
)

// Signal sends a signal to a component, such as one that makes it stand still.
func (c *ControlPlane) Signal(component string, signal syscall.Signal) error {
	pid, err := childPid(component)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return fmt.Errorf("send %s to %s: %w", signal, component, err)
	}
	return nil
}

// Pid returns the id of a component's process, to measure it.
func (c *ControlPlane) Pid(component string) (int, error) { return childPid(component) }

// Folder returns a folder for files that are removed when the control plane stops.
func (c *ControlPlane) Folder() string { return c.dir }

// Database returns the path of the file in which etcd keeps all objects.
func (c *ControlPlane) Database() string {
	return filepath.Join(c.plane.Etcd.DataDir, "member", "snap", "db")
}

// Kill ends a component and nothing else, as the kernel does when memory is short, and returns once it is gone.
func (c *ControlPlane) Kill(ctx context.Context, component string) error {
	pid, err := childPid(component)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", component, err)
	}
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still there after it was killed: %w", component, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// KillAPIServer is [ControlPlane.Kill] of the API server.
func (c *ControlPlane) KillAPIServer(ctx context.Context) error { return c.Kill(ctx, APIServer) }

// childPid finds a program among the processes that were started here; envtest keeps them to itself.
func childPid(program string) (int, error) {
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
		if path, err := os.Readlink(filepath.Join(dir, "exe")); err == nil && filepath.Base(path) == program {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("no %s runs that was started here", program)
}

// StartAPIServer starts it again, on the same etcd, address and certificates, and returns once it is ready.
func (c *ControlPlane) StartAPIServer() error { return c.plane.APIServer.Start() }

// StartEtcd starts it again, on the same data and address, and returns once it is ready.
func (c *ControlPlane) StartEtcd() error { return c.plane.Etcd.Start() }

// Etcd is the base URL of etcd.
func (c *ControlPlane) Etcd() string { return c.plane.Etcd.URL.String() }

// Kubectl returns the path of the kubectl that hack/kube built, or of the one in PATH if there is none.
func (c *ControlPlane) Kubectl() string {
	path := c.Binary("kubectl")
	if _, err := os.Stat(path); err != nil {
		if found, err := exec.LookPath("kubectl"); err == nil {
			return found
		}
	}
	return path
}

// Binary returns the path of a binary that hack/kube builds: in KUBEBUILDER_ASSETS if that folder has it, otherwise in bin/kube.
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

// RepositoryRoot returns the nearest folder upwards from the working directory that contains the file PROJECT.
func RepositoryRoot() (string, error) {
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
			return "", errors.New("not inside the repository: no PROJECT file in the working directory or its parents")
		}
		dir = parent
	}
}
