package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// controllers is the program with the controllers that a control plane without nodes needs.
const controllers = "controllers"

func (c *ControlPlane) startControllers(ctx context.Context, all bool, logs string) error {
	kubeconfig := filepath.Join(c.dir, "controllers.kubeconfig")
	if err := c.AdminKubeconfig(kubeconfig); err != nil {
		return err
	}
	ca := filepath.Join(c.dir, "ca.crt")
	if err := os.WriteFile(ca, c.Admin.CAData, 0o600); err != nil {
		return err
	}
	name, args := controllers, []string{
		"--kubeconfig=" + kubeconfig,
		"--root-ca-file=" + ca,
		// A quota on a resource that was unknown when the quota was created counts only after the next resync, five minutes by default.
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
		// Discover new kinds more often than by default: tests wait for what depends on it, such as garbage collection.
		args = append(args, "--discovery-period=5s")
	}
	c.controller = exec.Command(c.Binary(name), args...) //nolint:noctx // Stop stops it
	// In a process group of its own, it doesn't get Ctrl-C from the terminal, so that Stop decides the order.
	c.controller.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if c.controller.Stderr, err = c.log(logs, name+".log"); err != nil {
		return err
	}
	if err := c.controller.Start(); err != nil {
		c.controller = nil
		return fmt.Errorf("start %s (did you run `make kube`?): %w", name, err)
	}
	go func() {
		_ = c.controller.Wait() // kube-controller-manager exits with an error on SIGTERM
		close(c.exited)
	}()
	return c.waitForControllers(ctx)
}

// waitForControllers waits until the service account controller works. All the other controllers start together with it.
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
			return fmt.Errorf("%s exited before it was ready; see its log", filepath.Base(c.controller.Path))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", filepath.Base(c.controller.Path), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
