package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

const (
	leaseName = "apikey-operator"
	// With a shorter lease than the default of 15 seconds, the leader changes more often.
	leaseDuration, renewDeadline, retryPeriod = 6 * time.Second, 4 * time.Second, time.Second

	// logLevel is where client-go logs what it sends and gets.
	logLevel = 8

	// readyPatience is longer than the API server is ever down.
	readyPatience = 3 * time.Minute

	// restartDelay is how long after its end a process is started again, as a kubelet would do.
	restartDelay = 200 * time.Millisecond
)

// supervised is a process that is started again whenever it ends.
type supervised struct {
	name  string
	run   *run
	start func(context.Context) (*controlplane.Process, error)
	// ready waits until a process that was just started is at work.
	ready func(context.Context) error

	mu      sync.Mutex
	process *controlplane.Process
	// down says that the process must not be started again when it ends.
	down bool
}

// launch starts the process. mu must be held.
func (s *supervised) launch(ctx context.Context) error {
	s.run.note(model.Start{Process: s.name, At: now()})
	process, err := s.start(ctx)
	if err != nil {
		return err
	}
	s.process = process
	go func() {
		_ = process.Wait() // a leader that has lost its lease fails
		if pause(ctx, restartDelay) {
			s.relaunch(ctx, process)
		}
	}()
	return nil
}

// relaunch starts the process again if it ended by itself.
func (s *supervised) relaunch(ctx context.Context, ended *controlplane.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || s.process != ended {
		return
	}
	if s.name == plan.Verifiers[0] || s.name == plan.Verifiers[1] {
		s.run.note(model.Finding{At: now(), Text: s.name + " ended by itself"})
	}
	if err := s.launch(ctx); err != nil {
		s.run.note(model.Finding{At: now(), Text: fmt.Sprintf("%s does not start again: %v", s.name, err)})
	}
}

// begin starts the process and waits until it is ready.
func (s *supervised) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
	if err := s.launch(ctx); err != nil {
		return err
	}
	return s.ready(ctx)
}

// kill ends the process at once.
func (s *supervised) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	s.process.Signal(syscall.SIGKILL)
	_ = s.process.Wait() // killed
}

func (s *supervised) signal(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process.Signal(signal)
}

// stop ends the process in order, for good.
func (s *supervised) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	if s.process != nil {
		s.process.Signal(continueSignal)
		_ = s.process.Stop() // its exit code no longer matters
	}
}

// log opens the log file of a process, which stays the same over restarts.
func (r *run) log(name string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(r.folder, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		r.files = append(r.files, file)
	}
	return file, err
}

func ready(context.Context) error { return nil }

// The last use of keys is recorded far more often than by default, so that such writes meet all others.
const (
	usagePrecision = 5 * time.Second
	usageWrites    = 5 // a second
)

// startProcesses starts the verifiers and the operators. One operator is the binary, and the other runs the same controllers with a clock
// that can jump.
func (r *run) startProcesses(ctx context.Context) error {
	out, err := r.log(plan.Operators[0])
	if err != nil {
		return err
	}
	r.supervise(plan.Operators[0], ready, func(ctx context.Context) (*controlplane.Process, error) {
		operator, err := r.plane.LaunchOperator(ctx, out,
			"--leader-elect-lease-duration="+leaseDuration.String(), "--leader-elect-renew-deadline="+renewDeadline.String(),
			"--leader-elect-retry-period="+retryPeriod.String(), "--ttl-after-expired=1h", fmt.Sprintf("--log-level=%d", logLevel),
			"--usage-precision="+usagePrecision.String(), fmt.Sprintf("--usage-writes-per-second=%d", usageWrites))
		if err != nil {
			return nil, err
		}
		return operator.Process, nil
	})
	if err := r.superviseJumping(ctx); err != nil {
		return err
	}
	for _, name := range plan.Verifiers {
		if err := r.superviseVerifier(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range append(plan.Operators, plan.Verifiers...) {
		if err := r.processes[name].begin(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) supervise(name string, ready func(context.Context) error, start func(context.Context) (*controlplane.Process, error)) {
	r.processes[name] = &supervised{name: name, run: r, start: start, ready: ready}
}

func (r *run) superviseJumping(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(r.folder, "operator.kubeconfig")
	if err := r.plane.KubeconfigAs(ctx, controlplane.Namespace, controlplane.ServiceAccount, kubeconfig); err != nil {
		return err
	}
	out, err := r.log(plan.Jumping)
	if err != nil {
		return err
	}
	r.supervise(plan.Jumping, ready, func(context.Context) (*controlplane.Process, error) {
		command := exec.Command(self, "-operate", kubeconfig, "-plant", string(r.defect)) //nolint:noctx // stopped by stop, in order
		input, err := command.StdinPipe()
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.clock = input
		r.mu.Unlock()
		return controlplane.StartProcess(command, out)
	})
	return nil
}

func (r *run) superviseVerifier(ctx context.Context, name string) error {
	at, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return err
	}
	out, err := r.log(name)
	if err != nil {
		return err
	}
	args := []string{
		"--max-staleness=" + promises.MaxStaleness.String(), "--trusted-proxies=127.0.0.1/32", "--drain-delay=0s",
		fmt.Sprintf("--log-level=%d", logLevel), "--log-allowed",
	}
	// One verifier reports which keys are used and the other one does not, so that a difference between their answers is found.
	if name == plan.Verifiers[0] {
		args = append(args, "--usage-precision="+usagePrecision.String())
	} else {
		args = append(args, "--report-usage=false")
	}
	if r.defect.isVerifiers() {
		kubeconfig := filepath.Join(r.folder, name+".kubeconfig")
		config, err := r.plane.As(ctx, controlplane.Namespace, controlplane.VerifierAccount)
		if err != nil {
			return err
		}
		address, err := r.defect.road(config)
		if err != nil {
			return err
		}
		if err := controlplane.WriteKubeconfig(&rest.Config{Host: address}, kubeconfig); err != nil {
			return err
		}
		args = append(args, "--kubeconfig="+kubeconfig)
	}
	r.addresses[name] = at
	var probes string
	r.supervise(name, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, readyPatience)
		defer cancel()
		return r.until(ctx, func(ctx context.Context) error { return probe(ctx, probes+"/readyz") })
	}, func(ctx context.Context) (*controlplane.Process, error) {
		verifier, err := r.plane.StartVerifier(ctx, out, at, args...)
		if err != nil {
			return nil, err
		}
		probes = verifier.Probes
		return verifier.Process, nil
	})
	return nil
}

// probe asks a URL whether all is well.
func probe(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
