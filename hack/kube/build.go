package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// logName is the file in bin/kube with the output of the go command.
const logName = "build.log"

// tailLines is how many lines of the log are shown if a build fails.
const tailLines = 20

// versionPackage has the variables with the version of a binary. Without them, the API server reports v0.0.0,
// which clients can't compare.
const versionPackage = "k8s.io/component-base/version"

// build builds the binaries of a module with one command, so that shared packages are compiled once and all
// cores are busy until the end.
func (m *maker) build(ctx context.Context, group []binary) error {
	start := time.Now()
	log, err := os.OpenFile(filepath.Join(m.out, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	m.screen.say("Building %s into %s. See the log in %s.", names(group), relative(filepath.Join(m.out, group[0].into)), relative(log.Name()))
	module := group[0].module
	p := newProgress()
	packages, err := m.list(ctx, group, p, log)
	if err != nil {
		return err
	}
	p.plan(packages)
	m.screen.say("%s", p.summary())

	folder, err := os.MkdirTemp(m.out, ".build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	flags, err := m.linkerFlags(module)
	if err != nil {
		return err
	}
	args := append([]string{"build", "-v", "-o", folder + string(filepath.Separator), "-ldflags", flags}, module.flags()...)
	stop := m.screen.follow(p.text)
	err = m.golang(ctx, module, append(args, packagesOf(group)...), nil, p, log)
	stop()
	if err != nil {
		return err
	}
	for _, b := range group {
		pin, err := m.pin(b)
		if err != nil {
			return err
		}
		if err := m.install(b, filepath.Join(folder, b.built()), pin); err != nil {
			return err
		}
	}
	m.screen.say("Built %s in %s.", names(group), minutes(time.Since(start)))
	return nil
}

// listed is a package as go list reports it.
type listed struct {
	ImportPath string
	// Stale means that the package isn't in the build cache.
	Stale bool
}

// list returns the packages that a build needs, and downloads their modules.
func (m *maker) list(ctx context.Context, group []binary, p *progress, log io.Writer) ([]listed, error) {
	stop := m.screen.follow(func(time.Duration) string { return p.downloadText() })
	defer stop()
	// Without EmbedFiles in the list of fields, go list reports every package with embedded files as stale.
	args := append([]string{"list", "-deps", "-json=ImportPath,EmbedFiles,Stale"}, group[0].flags()...)
	out := &strings.Builder{}
	if err := m.golang(ctx, group[0].module, append(args, packagesOf(group)...), out, p, log); err != nil {
		return nil, err
	}
	var packages []listed
	for decoder := json.NewDecoder(strings.NewReader(out.String())); ; {
		var one listed
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages = append(packages, one)
	}
}

// golang runs the go command in the folder of a module. Standard error goes to the progress and to the log,
// standard output to out.
func (m *maker) golang(ctx context.Context, in module, args []string, out io.Writer, p *progress, log io.Writer) error {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = filepath.Join(m.source, in.folder)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	reader, writer := io.Pipe()
	command.Stdout, command.Stderr = out, writer
	tail := make(chan []string)
	go func() {
		var last []string
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			_, _ = fmt.Fprintln(log, lines.Text())
			if p.take(lines.Text()) {
				continue
			}
			if last = append(last, lines.Text()); len(last) > tailLines {
				last = last[1:]
			}
		}
		_, _ = io.Copy(io.Discard, reader) // the scanner stops at a line that is too long
		tail <- last
	}()
	err := command.Run()
	_ = writer.Close()
	said := <-tail
	if err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s", args[0], command.Dir, err, strings.Join(said, "\n"))
	}
	return nil
}

// flags returns the flags of the go command for the module. All builds in this repository use -trimpath, so
// that they share the build cache.
func (m module) flags() []string {
	flags := []string{"-trimpath"}
	if m.file != "go.mod" {
		flags = append(flags, "-modfile="+m.file)
	}
	if m.tags != "" {
		flags = append(flags, "-tags="+m.tags)
	}
	return flags
}

// linkerFlags strip symbols and set the version of Kubernetes. They don't affect what is compiled.
func (m *maker) linkerFlags(of module) (string, error) {
	version, err := kubernetesVersion(filepath.Join(m.source, of.folder, of.file))
	if err != nil {
		return "", err
	}
	number, ok := minor(version)
	if !ok { // CoreDNS does not require k8s.io/kubernetes
		return "-s -w", nil
	}
	return fmt.Sprintf("-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=1 -X %[1]s.gitMinor=%[3]d -X %[1]s.gitTreeState=clean",
		versionPackage, version, number), nil
}

func packagesOf(group []binary) []string {
	packages := make([]string, len(group))
	for i, b := range group {
		packages[i] = b.pkg
	}
	return packages
}

// names returns the names of binaries as a list in a sentence.
func names(binaries []binary) string {
	list := make([]string, len(binaries))
	for i, b := range binaries {
		list[i] = b.name
	}
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

// relative returns a path relative to the current folder if it is below it.
func relative(path string) string {
	if here, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(here, path); err == nil && !strings.HasPrefix(short, "..") {
			return short
		}
	}
	return path
}
