// Package node starts and stops a real cluster with one node: the control plane of test/kit/controlplane, a scheduler, DNS, containerd, a
// kubelet, kube-proxy, and a registry from which the node pulls images. The end-to-end tests use it; the product never does.
//
// It runs only under test/kit/sealed, whose network has nothing but loopback. The node and the API server have an address on loopback. Each
// pod has an interface of its own, and the node routes between them. There is no route to anywhere else, so pods need no hostNetwork and
// can't send packets out of the machine. When the namespaces end, the kernel removes everything that the tests left in them.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

const (
	// Name is the node's name.
	Name = "node0"
	// Address is the IP address of the node, its API server and its DNS.
	Address = "10.89.0.1"
	// PodCIDR is the range of the pods' IP addresses.
	PodCIDR = "10.89.1.0/24"

	// cgroupVariable is set inside test/kit/sealed; see there.
	cgroupVariable = "SEALED_CGROUP"
	// plugins is where Debian installs the network plugins.
	plugins = "/usr/lib/cni"
	// patience is how long each component may take to become ready.
	patience = time.Minute
)

// needed lists the programs that the repository does not build, and the Debian packages that contain them.
var needed = []struct{ path, debian string }{
	{"containerd", "containerd"},
	{"containerd-shim-runc-v2", "containerd"},
	{"runc", "runc"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
	{plugins + "/ptp", "containernetworking-plugins"},
	{plugins + "/host-local", "containernetworking-plugins"},
	{plugins + "/loopback", "containernetworking-plugins"},
}

// Node is a running cluster with one node.
type Node struct {
	*controlplane.ControlPlane
	// Registry is where the node pulls images from. Push images to it before pods use them.
	Registry *Registry

	dir, logs string
	sync      time.Duration
	files     []io.Closer
	processes []*controlplane.Process // in the order in which they were started
}

// Check returns an error that names what this machine lacks for a node.
func Check() error {
	if os.Getenv(cgroupVariable) == "" {
		return errors.New("a node runs only under test/kit/sealed, where it can't reach the machine's network: make e2e does that")
	}
	var packages []string
	for _, program := range needed {
		if _, err := exec.LookPath(program.path); err != nil && !slices.Contains(packages, program.debian) {
			packages = append(packages, program.debian)
		}
	}
	if len(packages) > 0 {
		return fmt.Errorf("a node needs programs that are not installed: apt-get install --no-install-recommends %s", strings.Join(packages, " "))
	}
	return nil
}

// Options configure a cluster. Logs is required.
type Options struct {
	// Logs is the folder to which each component logs, in a file of its own. Containers log to its subfolder pods.
	Logs string
	// Sync is how often the kubelet updates the files of mounted Secrets, plus up to half of that. It defaults to a minute, as the
	// kubelet's syncFrequency does.
	Sync time.Duration
	// Images, if it is set, pushes images to the registry while the cluster starts.
	Images func(*Registry) error
}

// Start starts a cluster and returns when its node is ready for pods.
func Start(ctx context.Context, o Options) (_ *Node, err error) {
	n := &Node{sync: cmp.Or(o.Sync, time.Minute)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Stop())
		}
	}()
	// Debian installs runc and nft there, and not every PATH has these folders.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return nil, err
	}
	if err := Check(); err != nil {
		return nil, err
	}
	if n.logs, err = filepath.Abs(o.Logs); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.logs, 0o755); err != nil {
		return nil, err
	}
	if n.dir, err = os.MkdirTemp("", "node-"); err != nil {
		return nil, err
	}
	var images errgroup.Group
	for _, step := range []func(context.Context) error{
		n.startNetwork, n.startRegistry,
		func(context.Context) error {
			if o.Images != nil {
				images.Go(func() error { return o.Images(n.Registry) })
			}
			return nil
		},
		n.startControlPlane, n.startDNS, n.startContainerd, n.startKubelet, n.startScheduler, n.startProxy, n.waitReady,
	} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, images.Wait())
		}
	}
	return n, images.Wait()
}

// Stop stops all components, newest first.
func (n *Node) Stop() error {
	var errs []error
	for _, process := range slices.Backward(n.processes) {
		err := process.Stop()
		var status *exec.ExitError
		if !errors.As(err, &status) { // most of them exit with an error on SIGTERM
			errs = append(errs, err)
		}
	}
	if n.Registry != nil {
		errs = append(errs, n.Registry.stop())
	}
	if n.ControlPlane != nil {
		// On SIGTERM, the API server would wait a minute for the watches of pods that still run.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		errs = append(errs, n.KillAPIServer(ctx), n.ControlPlane.Stop())
	}
	for _, file := range n.files {
		errs = append(errs, file.Close())
	}
	// The folder stays, because containers and their mounts are in it. It is in the namespaces' memory and ends with them.
	return errors.Join(errs...)
}

func (n *Node) startNetwork(ctx context.Context) error {
	for _, command := range []string{
		"ip link set lo up",
		"ip address add " + Address + "/32 dev lo",
	} {
		words := strings.Fields(command)
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", command, err, out)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600)
}

func (n *Node) startControlPlane(ctx context.Context) (err error) {
	n.ControlPlane, err = controlplane.Start(ctx, controlplane.Options{
		Logs: n.logs, Address: Address, AllControllers: true,
		APIServer: map[string]string{
			"authorization-mode":              "Node,RBAC",
			"allow-privileged":                "false",
			"kubelet-preferred-address-types": "InternalIP",
		},
	})
	return err
}

func (n *Node) startRegistry(ctx context.Context) (err error) {
	if n.Registry, err = newRegistry(ctx); err != nil {
		return err
	}
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	_, err = n.Registry.PushBinary(pause, filepath.Join(root, "bin", "pause"))
	return err
}

func (n *Node) startDNS(ctx context.Context) error {
	kubeconfig, err := n.kubeconfig("coredns", n.Admin)
	if err != nil {
		return err
	}
	corefile, err := n.write("Corefile", fmt.Sprintf(corefile, Address, kubeconfig))
	if err != nil {
		return err
	}
	dns, err := n.start(n.Binary("coredns"), "-conf", corefile)
	if err != nil {
		return err
	}
	return dns.WaitHTTP(ctx, "http://"+dnsReady+"/ready")
}

func (n *Node) startContainerd(ctx context.Context) error {
	network := filepath.Join(n.dir, "cni")
	if err := os.Mkdir(network, 0o755); err != nil {
		return err
	}
	if _, err := n.write("cni/pods.conflist", fmt.Sprintf(podNetwork, PodCIDR, filepath.Join(n.dir, "addresses"))); err != nil {
		return err
	}
	config, err := n.write("containerd.toml", fmt.Sprintf(containerdConfig, n.dir, socket, n.Registry.reference(pause), plugins, network))
	if err != nil {
		return err
	}
	containerd, err := n.start("containerd", "--config="+config)
	if err != nil {
		return err
	}
	return containerd.WaitListening(ctx, "unix", socket)
}

func (n *Node) startKubelet(ctx context.Context) error {
	if err := n.copySettings(); err != nil {
		return err
	}
	user, err := n.User("system:node:"+Name, "system:nodes")
	if err != nil {
		return err
	}
	kubeconfig, err := n.kubeconfig("kubelet", user)
	if err != nil {
		return err
	}
	resolv, err := n.write("resolv.conf", "")
	if err != nil {
		return err
	}
	root := filepath.Join(n.dir, "kubelet")
	config, err := n.write("kubelet.yaml", fmt.Sprintf(kubeletConfig,
		Address, os.Getenv(cgroupVariable), Address, "unix://"+socket, resolv, filepath.Join(n.logs, "pods"), filepath.Join(root, "plugins"), n.sync))
	if err != nil {
		return err
	}
	kubelet, err := n.start(n.Binary("kubelet"),
		"--config="+config, "--kubeconfig="+kubeconfig, "--root-dir="+root, "--cert-dir="+filepath.Join(root, "pki"),
		"--hostname-override="+Name, "--node-ip="+Address)
	if err != nil {
		return err
	}
	return kubelet.WaitHTTP(ctx, "http://127.0.0.1:10248/healthz")
}

// copySettings mounts copies over the kernel settings that the kubelet insists on, because it must not set the machine's.
func (n *Node) copySettings() error {
	for _, setting := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	} {
		path := filepath.Join("/proc/sys", setting)
		value, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := n.write(strings.ReplaceAll(setting, "/", "."), string(value))
		if err != nil {
			return err
		}
		if err := syscall.Mount(file, path, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount a copy over %s: %w", path, err)
		}
	}
	return nil
}

func (n *Node) startScheduler(context.Context) error {
	kubeconfig, err := n.kubeconfig("scheduler", n.Admin)
	if err != nil {
		return err
	}
	_, err = n.start(n.Binary("kube-scheduler"), "--kubeconfig="+kubeconfig, "--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+n.dir)
	return err
}

func (n *Node) startProxy(ctx context.Context) error {
	kubeconfig, err := n.kubeconfig("proxy", n.Admin)
	if err != nil {
		return err
	}
	config, err := n.write("proxy.yaml", fmt.Sprintf(proxyConfig, kubeconfig, Name))
	if err != nil {
		return err
	}
	proxy, err := n.start(n.Binary("kube-proxy"), "--config="+config)
	if err != nil {
		return err
	}
	return proxy.WaitHTTP(ctx, "http://127.0.0.1:10256/healthz")
}

// waitReady waits until the node is ready and has no taints, so that pods can be scheduled.
func (n *Node) waitReady(ctx context.Context) error {
	clients, err := kubernetes.NewForConfig(n.Admin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		node, err := clients.CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
		if err == nil && len(node.Spec.Taints) == 0 && slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node is not ready; see kubelet.log and containerd.log in %s: %w", n.logs, errors.Join(ctx.Err(), err))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// start starts a program that logs to a file with its name.
func (n *Node) start(program string, args ...string) (*controlplane.Process, error) {
	log, err := os.Create(filepath.Join(n.logs, filepath.Base(program)+".log"))
	if err != nil {
		return nil, err
	}
	n.files = append(n.files, log)
	process, err := controlplane.StartProcess(exec.Command(program, args...), log) //nolint:noctx // Stop stops it
	if err != nil {
		return nil, err
	}
	n.processes = append(n.processes, process)
	return process, nil
}

func (n *Node) write(name, text string) (string, error) {
	path := filepath.Join(n.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func (n *Node) kubeconfig(component string, user *rest.Config) (string, error) {
	path := filepath.Join(n.dir, component+".kubeconfig")
	return path, controlplane.WriteKubeconfig(user, path)
}
