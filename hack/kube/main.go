// Command kube makes the binaries of the local control plane in bin/kube, those that are missing or of another pin: etcd, kube-apiserver
// and kubectl are downloaded where that is possible, and the rest is built from the Go modules that are pinned below this folder.
//
//	go run ./hack/kube SET...
//
// The sets are controlplane; demo, which is controlplane with the kubectl of PATH where that fits and there is no other; node, which is what
// a node needs on top; and oldest, which is the control plane of the oldest supported release.
//
// KUBE_PREBUILT=off builds everything from source. Another value is the base URL of a mirror of the archives.
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

// prebuiltVariable is the environment variable with the mirror of the archives, or off.
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
		return fmt.Errorf("run it in the repository's root folder: %w", err)
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
			return fmt.Errorf("no set %q; there are controlplane, demo, node and oldest", name)
		}
		if name == "demo" && !m.has("kubectl") && m.hasKubectl(ctx) {
			set = without(set, "kubectl")
		}
		wanted = append(wanted, set...)
	}
	if len(wanted) == 0 {
		return errors.New("nothing is named: want controlplane, demo, node or oldest, or several of them")
	}
	return m.make(ctx, wanted)
}

// maker makes binaries.
type maker struct {
	// source is the folder with the modules, out the one for binaries.
	source, out string
	// mirror is the base URL of the archives; "" means that everything is built.
	mirror   string
	archives map[string]archive
	patience time.Duration
	screen   *screen
}

// make makes those of the binaries that are missing or of another pin.
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

// missing are the binaries that are not there, or whose pin is another.
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

// has tells whether a binary of the newest release is there, of whatever pin: whoever looks for one takes it before that of PATH.
func (m *maker) has(name string) bool {
	_, err := os.Stat(filepath.Join(m.out, name))
	return err == nil
}

// install puts a finished binary into its place, and notes its pin.
func (m *maker) install(b binary, file, pin string) error {
	// Whoever is stopped in between makes the binary anew.
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
