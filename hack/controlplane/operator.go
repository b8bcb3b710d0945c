package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Where config/default puts the operator, and as whom it runs.
const (
	Namespace      = "apikey-operator-system"
	ServiceAccount = "apikey-operator"
)

// Install does what a cluster administrator does: kubectl apply -k config/default. It returns once the kinds are served and the admission
// policies refuse. Nothing runs the Deployment here, for want of a scheduler and a node.
func (c *ControlPlane) Install(ctx context.Context) error {
	if out, err := c.RunKubectl(ctx, "", "apply", "-k", filepath.Join(c.Root, "config", "default")); err != nil {
		return fmt.Errorf("install: %w\n%s", err, out)
	}
	out, err := c.RunKubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s",
		"-f", filepath.Join(c.Root, "config", "crd", "bases"))
	if err != nil {
		return fmt.Errorf("wait for the kinds: %w\n%s", err, out)
	}
	return c.WaitGuarded(ctx, Namespace, ServiceAccount)
}

// WaitGuarded waits until each admission policy of config/policy refuses what it must: the API server takes a new policy up only some
// time after it was created. The operator is the given service account, and each policy's name starts with its name.
func (c *ControlPlane) WaitGuarded(ctx context.Context, namespace, serviceAccount string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const key = `{"apiVersion":"apikey-operator.io/v1alpha1","kind":"ApiKey","metadata":{"name":"install-probe"},` +
		`"spec":{"roles":["install.probe"],"expiry":{"never":true}}}`
	const ofType = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"install-probe"},"type":"%s"}`
	if out, err := c.RunKubectl(ctx, key, "-n", namespace, "apply", "-f", "-"); err != nil {
		return fmt.Errorf("create a key to try the policies on: %w\n%s", err, out)
	}
	for _, probe := range []struct {
		policy, input string
		args          []string
	}{
		{"-status", "", []string{"patch", "apikey", "install-probe", "--subresource=status", "--type=merge", `-p={"status":{"tokenHint":"ak_"}}`}},
		{"-token-secrets", fmt.Sprintf(ofType, "apikey-operator.io/token"), []string{"create", "-f", "-"}},
		{"-limits", fmt.Sprintf(ofType, "Opaque"), []string{"create", "-f", "-", "--as=system:serviceaccount:" + namespace + ":" + serviceAccount}},
	} {
		for {
			out, err := c.RunKubectl(ctx, probe.input, append([]string{"-n", namespace, "--dry-run=server"}, probe.args...)...)
			if err != nil && strings.Contains(out, "ValidatingAdmissionPolicy '"+serviceAccount+probe.policy+"'") {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s does not refuse kubectl %v: %w\n%s", serviceAccount+probe.policy, probe.args, ctx.Err(), out)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	if out, err := c.RunKubectl(ctx, "", "-n", namespace, "delete", "apikey", "install-probe"); err != nil {
		return fmt.Errorf("delete the key to try the policies on: %w\n%s", err, out)
	}
	return nil
}

// RunKubectl runs kubectl as the administrator, in the repository's root folder, and returns all that it prints.
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

// Operator is a running process of bin/apikey-operator.
type Operator struct {
	// Probes and Metrics are the base URLs of its two listeners.
	Probes, Metrics string

	command *exec.Cmd
	exited  chan error
}

// StartOperator runs bin/apikey-operator as its own service account, with exactly the permissions of config/rbac, and returns once
// it is ready. Further arguments are added to its command line; its log goes to out.
func (c *ControlPlane) StartOperator(ctx context.Context, out io.Writer, args ...string) (*Operator, error) {
	kubeconfig := filepath.Join(c.dir, "operator.kubeconfig")
	if err := c.KubeconfigAs(ctx, Namespace, ServiceAccount, kubeconfig); err != nil {
		return nil, err
	}
	var addresses [2]string
	for i := range addresses {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		addresses[i] = "127.0.0.1:" + strconv.Itoa(port)
	}
	o := &Operator{
		Probes:  "http://" + addresses[0],
		Metrics: "https://" + addresses[1],
		exited:  make(chan error, 1),
	}
	o.command = exec.Command(filepath.Join(c.Root, "bin", "apikey-operator"), append([]string{ //nolint:noctx // stopped by Stop, in order
		"--kubeconfig=" + kubeconfig,
		"--leader-elect-namespace=" + Namespace,
		"--health-probe-bind-address=" + addresses[0],
		"--metrics-bind-address=" + addresses[1],
	}, args...)...)
	o.command.Stdout, o.command.Stderr = out, out
	o.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := o.command.Start(); err != nil {
		return nil, fmt.Errorf("start the operator (has `make build` been run?): %w", err)
	}
	go func() { o.exited <- o.command.Wait() }()
	if err := o.waitReady(ctx); err != nil {
		return nil, errors.Join(err, o.Stop())
	}
	return o, nil
}

// Stop asks the operator to finish and returns what it exited with.
func (o *Operator) Stop() error {
	_ = o.command.Process.Signal(syscall.SIGTERM) // it may have exited already
	select {
	case err := <-o.exited:
		o.exited <- err
		return err
	case <-time.After(time.Minute):
		_ = o.command.Process.Kill()
		return errors.New("the operator did not stop within a minute of SIGTERM")
	}
}

// Pid is the operator's process id.
func (o *Operator) Pid() int { return o.command.Process.Pid }

func (o *Operator) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Probes+"/readyz", nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-o.exited:
			o.exited <- err
			return fmt.Errorf("the operator stopped before it was ready: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("the operator is not ready: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
