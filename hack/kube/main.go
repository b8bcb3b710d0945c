// Command kube makes the binaries of the local control plane in bin/kube, as far as they are missing or out
// of date. It downloads etcd, kube-apiserver and kubectl if possible, and builds the rest from the Go modules
// below this folder.
//
//	go run ./hack/kube SET...
//
// The sets are:
//
//   - controlplane: etcd, the API server, its controllers and kubectl
//   - demo: controlplane, but without kubectl if the one in PATH fits and bin/kube has none
//   - node: the further parts of a node
//   - oldest: the control plane of the oldest supported release
//
// The environment variable KUBE_PREBUILT is the base URL of a mirror of the archives. KUBE_PREBUILT=off
// builds everything from source.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// prebuiltVariable is the environment variable with the base URL of the archives, or off.
const prebuiltVariable = "KUBE_PREBUILT"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	root, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "hack", "kube")); err != nil {
		return fmt.Errorf("run kube in the root folder of the repository: %w", err)
	}
	mirror := os.Getenv(prebuiltVariable)
	switch mirror {
	case "":
		mirror = publicMirror
	case "off":
		mirror = ""
	}
	m := &maker{
		source: filepath.Join(root, "hack", "kube"), out: filepath.Join(root, "bin", "kube"),
		mirror: mirror, archives: archives, patience: patience, screen: newScreen(os.Stderr),
	}
	var wanted []binary
	for _, name := range names {
		set, ok := sets[name]
		if !ok {
			return fmt.Errorf("unknown set %q: must be controlplane, demo, node or oldest", name)
		}
		if name == "demo" && !m.has("kubectl") && m.hasKubectl(ctx) {
			set = without(set, "kubectl")
		}
		wanted = append(wanted, set...)
	}
	if len(wanted) == 0 {
		return errors.New("missing argument: name one or more of the sets controlplane, demo, node and oldest")
	}
	return m.make(ctx, wanted)
}

// maker makes binaries.
type maker struct {
	// source is the folder with the modules, out is the folder for the binaries.
	source, out string
	// mirror is the base URL of the archives. Empty means that everything is built.
	mirror   string
	archives map[string]archive
	patience time.Duration
	screen   *screen
}

// make makes those binaries that are missing or out of date.
func (m *maker) make(ctx context.Context, wanted []binary) error {
	missing, err := m.missing(wanted)
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := os.MkdirAll(m.out, 0o755); err != nil {
		return err
	}
	downloaded, err := m.download(ctx, missing)
	if err != nil {
		return err
	}
	var rest []binary
	for _, b := range missing {
		if !downloaded[b.name] {
			rest = append(rest, b)
		}
	}
	for _, group := range groups(rest) {
		if err := m.build(ctx, group); err != nil {
			return err
		}
	}
	return nil
}

// missing returns the binaries that don't exist or have another pin than they should.
func (m *maker) missing(wanted []binary) ([]binary, error) {
	var missing []binary
	for _, b := range wanted {
		accepted, err := m.accepted(b)
		if err != nil {
			return nil, err
		}
		pin, err := os.ReadFile(m.pinFile(b))
		if err == nil {
			_, err = os.Stat(m.path(b))
		}
		if err != nil || !accepted[strings.TrimSpace(string(pin))] {
			missing = append(missing, b)
		}
	}
	return missing, nil
}

// has reports whether a binary of the newest release exists, with any pin. Users of kubectl prefer it to the
// one in PATH.
func (m *maker) has(name string) bool {
	_, err := os.Stat(filepath.Join(m.out, name))
	return err == nil
}

// install moves a finished binary to its place and records its pin.
func (m *maker) install(b binary, file, pin string) error {
	// If the process is stopped in between, the missing pin makes the next run replace the binary.
	if err := os.Remove(m.pinFile(b)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.path(b)), 0o755); err != nil {
		return err
	}
	if err := os.Rename(file, m.path(b)); err != nil {
		return err
	}
	return os.WriteFile(m.pinFile(b), []byte(pin+"\n"), 0o644)
}

func (m *maker) path(b binary) string { return filepath.Join(m.out, b.into, b.name) }

func (m *maker) pinFile(b binary) string { return filepath.Join(m.out, b.into, "."+b.name+".pin") }
