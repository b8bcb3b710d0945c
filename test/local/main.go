// Command local runs apikey-operator against a real control plane on this machine: as a demo that ends by itself, or until Ctrl-C for use
// by hand. `make demo` and `make run` start it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// In the demo, nginx asks the verifier on a client's behalf. In run, users call the verifier directly.
	plays := map[string]play{
		"demo": {scene: demo, verifier: []string{"--trusted-proxies=127.0.0.1/32", "--drain-delay=0s"}},
		"run":  {scene: stayUp, verifier: []string{"--peer-is-client", "--drain-delay=0s"}},
	}
	if len(os.Args) != 2 || plays[os.Args[1]].scene == nil {
		fmt.Fprintln(os.Stderr, "usage: local demo|run")
		os.Exit(2)
	}
	if err := withCluster(ctx, plays[os.Args[1]]); err != nil {
		fmt.Fprintln(os.Stderr, "local:", err)
		os.Exit(1)
	}
}

// play is a scene and the verifier's flags for it.
type play struct {
	scene    func(context.Context, *local) error
	verifier []string
}

// local is a control plane with an operator and a verifier.
type local struct {
	plane      *controlplane.ControlPlane
	verifier   *controlplane.Verifier
	kubeconfig string
	logs       string
}

// withCluster starts everything, plays a scene, and stops everything in the opposite order.
func withCluster(ctx context.Context, p play) (err error) {
	say("Starting etcd, kube-apiserver and the Kubernetes controllers on loopback.")
	dir, err := filepath.Abs(filepath.Join("bin", "local"))
	if err != nil {
		return err
	}
	logs := filepath.Join(dir, "logs")
	plane, err := controlplane.Start(ctx, controlplane.Options{Logs: logs})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, plane.Stop())
		say("Stopped. Logs are in %s.", logs)
	}()
	l := &local{plane: plane, kubeconfig: filepath.Join(dir, "kubeconfig"), logs: logs}
	if err := plane.AdminKubeconfig(l.kubeconfig); err != nil {
		return err
	}

	say("Installing with kubectl apply -k config/default, as a cluster administrator does.")
	if err := plane.Install(ctx); err != nil {
		return err
	}
	say("Starting the operator and the verifier, each as its own service account with exactly the permissions in config/.")
	operator, err := l.start("apikey-operator", func(log io.Writer) (*controlplane.Process, error) {
		o, err := plane.StartOperator(ctx, log)
		if err != nil {
			return nil, err
		}
		return o.Process, nil
	})
	if err != nil {
		return err
	}
	defer func() {
		say("Stopping the operator, then the control plane.")
		err = errors.Join(err, operator.Stop())
	}()
	say("The verifier refuses a route that requires neither a role nor a namespace; with --require-scope=false such a route accepts every valid key.")
	at, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return err
	}
	verifier, err := l.start("apikey-verifier", func(log io.Writer) (*controlplane.Process, error) {
		if l.verifier, err = plane.StartVerifier(ctx, log, at, p.verifier...); err != nil {
			return nil, err
		}
		return l.verifier.Process, l.verifier.WaitHTTP(ctx, l.verifier.Probes+"/readyz")
	})
	if err != nil {
		return err
	}
	defer func() {
		say("Stopping the verifier.")
		err = errors.Join(err, verifier.Stop())
	}()
	return p.scene(ctx, l)
}

// start starts a process that logs to a file with its name.
func (l *local) start(name string, start func(log io.Writer) (*controlplane.Process, error)) (*controlplane.Process, error) {
	log, err := os.Create(filepath.Join(l.logs, name+".log"))
	if err != nil {
		return nil, err
	}
	// The process has its own handle of the file.
	defer func() { _ = log.Close() }()
	return start(log)
}

// stayUp prints how to use the cluster and waits for Ctrl-C.
func stayUp(ctx context.Context, l *local) error {
	page, err := l.plane.StartPage(l.kubeconfig)
	if err != nil {
		return err
	}
	defer func() { _ = page.Stop() }() // it ends by itself, too, when nobody uses it
	fmt.Println()
	fmt.Println("Ready. In another terminal:")
	fmt.Println()
	fmt.Println("export KUBECONFIG=" + l.kubeconfig)
	fmt.Println("export PATH=" + filepath.Dir(l.plane.Kubectl()) + ":" + filepath.Join(l.plane.Root, "bin") + ":$PATH")
	fmt.Println("export VERIFIER_HTTP=" + l.verifier.HTTP)
	fmt.Println("export VERIFIER_GRPC=" + l.verifier.GRPC)
	fmt.Println()
	fmt.Println("TOKEN=$(kubectl apikey create shopper --role org.permission.order.read --expires 90d)")
	fmt.Println(`curl -i -H "Authorization: Bearer $TOKEN" "$VERIFIER_HTTP/auth?role=org.permission.order.read"`)
	fmt.Println("kubectl apikey list")
	fmt.Println()
	fmt.Println("In a browser, once (for another link, run bin/kubectl-apikey ui):")
	fmt.Println()
	fmt.Println(page.Link)
	fmt.Println()
	fmt.Println("Ctrl-C stops everything.")
	<-ctx.Done()
	return nil
}

func say(format string, args ...any) { fmt.Printf("# "+format+"\n", args...) }
