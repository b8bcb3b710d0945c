// Command sealed runs a command as root in new namespaces for processes, mounts, the network, IPC and the host name. Tests of a node run
// under it. The command can't send packets out of the machine, because the new network has only loopback. However the command ends, it
// leaves nothing behind: the kernel removes processes, mounts and interfaces together with the namespaces.
//
//	sealed COMMAND [ARGUMENT...]
//
// The command has its own /run and TMPDIR, in memory, and its changes to /var stay in memory too. It can change kernel settings of the
// network, but no others. SEALED_CGROUP names a control group in which it may create others. The kernel does not remove control groups, so
// sealed does.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	// cgroupVariable is set for the command, and tells test/kit/node that it runs under sealed.
	cgroupVariable = "SEALED_CGROUP"
	cgroups        = "/sys/fs/cgroup"
	// first is the argument 0 with which sealed starts itself inside the new namespaces.
	first = "sealed-init"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: sealed COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	run := outside
	if os.Args[0] == first {
		run = inside
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "sealed:", err)
		status = 1
	}
	os.Exit(status)
}

// outside starts this program again in new namespaces, waits for it, and removes its control group.
func outside(args []string) (status int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("must run as root to make namespaces and control groups, for example in a virtual machine or a privileged container")
	}
	group := "/sealed-" + strconv.Itoa(os.Getpid())
	defer func() { err = errors.Join(err, removeCgroup(group)) }()
	if err := makeCgroup(group); err != nil {
		return 0, err
	}
	// The kernel kills the child when the thread that started it exits. Keep the thread.
	runtime.LockOSThread()
	command := exec.Command("/proc/self/exe", args...) //nolint:noctx // signals are forwarded to it
	command.Args[0] = first
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), cgroupVariable+"="+group)
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		// The child would otherwise get Ctrl-C twice: from the terminal and forwarded.
		Setpgid: true,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	if err := command.Start(); err != nil {
		return 0, fmt.Errorf("make namespaces (needs CAP_SYS_ADMIN): %w", err)
	}
	go func() {
		for each := range signals {
			_ = command.Process.Signal(each) // it may have exited
		}
	}()
	err = command.Wait()
	var failure *exec.ExitError
	if errors.As(err, &failure) {
		return max(1, failure.ExitCode()), nil // after a signal, the code is -1
	}
	return 0, err
}

// inside runs as process 1 of the new namespaces. It prepares them, starts the command, and reaps every process that exits. When it exits,
// the kernel kills all the others.
func inside(args []string) (int, error) {
	if err := arrange(); err != nil {
		return 0, err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	command, err := os.StartProcess(path, args, &os.ProcAttr{
		Env:   append(os.Environ(), "TMPDIR=/run/tmp"),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, err
	}
	go func() {
		for each := range signals {
			_ = command.Signal(each) // it may have exited
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for %s: %w", args[0], err)
		case pid == command.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == command.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// arrange mounts the new namespaces' own /proc, /run and /var.
func arrange() error {
	// From now on, mounts stay in this namespace.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// These settings apply to the whole machine, and a kubelet would change some of them.
	for _, settings := range []string{"/proc/sys/kernel", "/proc/sys/vm"} {
		if err := syscall.Mount(settings, settings, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", settings, err)
		}
		if err := syscall.Mount("", settings, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", settings, err)
		}
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, folder := range []string{"/run/tmp", "/run/var", "/run/var/changes", "/run/var/work"} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
	}
	if err := syscall.Mount("overlay", "/var", "overlay", 0, "lowerdir=/var,upperdir=/run/var/changes,workdir=/run/var/work"); err != nil {
		return fmt.Errorf("mount an overlay over /var: %w", err)
	}
	return nil
}

// hierarchies returns the mounts of control groups: one for version 2, one per controller for version 1.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}, nil
	}
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		if entry.IsDir() { // symbolic links point to the others
			all = append(all, filepath.Join(cgroups, entry.Name()))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no control groups are mounted in %s", cgroups)
	}
	return all, nil
}

func makeCgroup(group string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range all {
		if err := os.Mkdir(filepath.Join(hierarchy, group), 0o755); err != nil {
			return fmt.Errorf("make a control group (is /sys/fs/cgroup mounted read-only?): %w", err)
		}
	}
	return nil
}

// removeCgroup removes a control group and its descendants.
func removeCgroup(group string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range all {
		var folders []string
		err := filepath.WalkDir(filepath.Join(hierarchy, group), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				folders = append(folders, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, folder := range slices.Backward(folders) {
			if err := removeBusy(folder); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeBusy removes a control group. The kernel refuses that for a moment after the last process of the group has exited.
func removeBusy(folder string) error {
	const patience = 10 * time.Second
	deadline := time.After(patience)
	for {
		err := syscall.Rmdir(folder)
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		select {
		case <-deadline:
			return fmt.Errorf("control group %s still has processes after %s: %w", folder, patience, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
