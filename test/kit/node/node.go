// Package node starts and stops a real cluster of one node: the control plane of test/kit/controlplane, a scheduler, DNS, containerd, a
// kubelet and kube-proxy, which run pods from images of a registry of its own. The end-to-end tests use it; the product never does.
//
// It runs only under test/kit/sealed, where the one network is the machine's inside: the node and the API server have an address on
// loopback, each pod has an interface of its own, routed by the node, and there is no route beyond them. So pods need no hostNetwork, and
// no packet of theirs can leave the machine. What is still there when the tests end, the kernel takes along with the namespaces.
package node

import (
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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

const (
	// Name of the node.
	Name = "node0"
	// Address of the node, of its API server and of its DNS.
	Address = "10.89.0.1"
	// PodCIDR is what pods get their addresses from.
	PodCIDR = "10.89.1.0/24"

	// cgroupVariable is set by test/kit/sealed.
	cgroupVariable = "SEALED_CGROUP"
	// plugins is where Debian puts the network plugins.
	plugins = "/usr/lib/cni"
	// patience is for each component to be at work.
	patience = time.Minute
)

// needed are the programs that aren't built here, and Debian's packages of them.
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

// Node is a running cluster of one node.
type Node struct {
	*controlplane.ControlPlane
	// Registry is where the node pulls from: push images to it. A reference begins with its Address.
	Registry *Registry

	dir, logs string
	files     []io.Closer
	processes []*controlplane.Process // in the order of their start
}

// Check tells what this machine lacks for a node.
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
		return fmt.Errorf("a node needs programs that are not here: apt-get install --no-install-recommends %s", strings.Join(packages, " "))
	}
	return nil
}

// Start starts a cluster and returns once its node is ready for pods. The log of each component goes to a file in the folder logs, and
// those of containers to a folder pods in it.
func Start(ctx context.Context, logs string) (_ *Node, err error) {
	n := &Node{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Stop())
		}
	}()
	// Where Debian has runc and nft, and not everybody looks.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return nil, err
	}
	if err := Check(); err != nil {
		return nil, err
	}
	if n.logs, err = filepath.Abs(logs); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.logs, 0o755); err != nil {
		return nil, err
	}
	if n.dir, err = os.MkdirTemp("", "node-"); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{
		n.startNetwork, n.startControlPlane, n.startRegistry, n.startDNS, n.startContainerd, n.startKubelet, n.startScheduler, n.startProxy,
		n.waitReady,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Stop ends what was started, newest first.
func (n *Node) Stop() error {
	var errs []error
	for _, process := range slices.Backward(n.processes) {
		err := process.Stop()
		var status *exec.ExitError
		if !errors.As(err, &status) { // most of them exit with a failure when they are told to stop
			errs = append(errs, err)
		}
	}
	if n.Registry != nil {
		errs = append(errs, n.Registry.stop())
	}
	if n.ControlPlane != nil {
		// Asked to stop, it would wait a minute for the watches of what still runs in pods.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		errs = append(errs, n.KillAPIServer(ctx), n.ControlPlane.Stop())
	}
	for _, file := range n.files {
		errs = append(errs, file.Close())
	}
	// The folder stays: containers and their mounts are in it. It is in the memory of the namespaces, and goes with them.
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
	_, err = n.Registry.PushBinary(pause, filepath.Join(n.Root, "bin", "pause"))
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
		Address, os.Getenv(cgroupVariable), Address, "unix://"+socket, resolv, filepath.Join(n.logs, "pods"), filepath.Join(root, "plugins")))
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

// copySettings gives the kubelet copies of the kernel's settings that it insists on: the machine's are not its to set.
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
			return fmt.Errorf("lay a copy over %s: %w", path, err)
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

// waitReady waits until pods would be scheduled.
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
			return fmt.Errorf("the node is not ready, and kubelet.log and containerd.log in %s say why: %w", n.logs, errors.Join(ctx.Err(), err))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// start starts a program, with its log in a file of its name.
func (n *Node) start(program string, args ...string) (*controlplane.Process, error) {
	log, err := os.Create(filepath.Join(n.logs, filepath.Base(program)+".log"))
	if err != nil {
		return nil, err
	}
	n.files = append(n.files, log)
	process, err := controlplane.StartProcess(exec.Command(program, args...), log) //nolint:noctx // stopped by Stop, in order
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
