// Command local runs apikey-operator on a real control plane of this machine: as a demo that ends by itself, or to be used by
// hand. It is what `make demo` and `make run` start.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/apikey-operator/apikey-operator/hack/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	scenes := map[string]func(context.Context, *local) error{"demo": demo, "run": stayUp}
	if len(os.Args) != 2 || scenes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: local demo|run")
		os.Exit(2)
	}
	if err := withCluster(ctx, scenes[os.Args[1]]); err != nil {
		fmt.Fprintln(os.Stderr, "local:", err)
		os.Exit(1)
	}
}

// local is a control plane with an operator on it.
type local struct {
	plane      *controlplane.ControlPlane
	kubeconfig string
	logs       string
}

// withCluster sets everything up, plays a scene, and takes everything down again in the opposite order.
func withCluster(ctx context.Context, scene func(context.Context, *local) error) (err error) {
	say("Starting etcd, kube-apiserver and kube-controller-manager on loopback.")
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

	say("Installing as a cluster administrator does: kubectl apply -k config/default.")
	if err := plane.Install(ctx); err != nil {
		return err
	}
	say("Starting the operator as its own service account, with exactly the permissions of config/rbac.")
	log, err := os.Create(filepath.Join(logs, "apikey-operator.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	operator, err := plane.StartOperator(ctx, log)
	if err != nil {
		return err
	}
	defer func() {
		say("Stopping the operator, then the control plane.")
		err = errors.Join(err, operator.Stop())
	}()
	return scene(ctx, l)
}

// stayUp waits for Ctrl-C.
func stayUp(ctx context.Context, l *local) error {
	fmt.Println()
	fmt.Println("Ready. In another terminal:")
	fmt.Println()
	fmt.Println("export KUBECONFIG=" + l.kubeconfig)
	fmt.Println("export PATH=" + filepath.Dir(l.plane.Kubectl()) + ":$PATH")
	fmt.Println()
	fmt.Println("kubectl apply -k config/samples && kubectl get apikeys")
	fmt.Println()
	fmt.Println("Ctrl-C stops everything.")
	<-ctx.Done()
	return nil
}

func say(format string, args ...any) { fmt.Printf("# "+format+"\n", args...) }
