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

// logName is the file in bin/kube that has all that the go command says.
const logName = "build.log"

// tailLines is how much of it is shown when a build fails.
const tailLines = 20

// versionPackage has the variables that a binary tells its version from. Without them the API server says v0.0.0, which clients refuse to
// compare.
const versionPackage = "k8s.io/component-base/version"

// build builds binaries of one module by one command, so that what they share is compiled once and both cores have work to the end.
func (m *maker) build(ctx context.Context, group []binary) error {
	start := time.Now()
	log, err := os.OpenFile(filepath.Join(m.out, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	m.screen.say("Building %s into %s. The log is %s.", names(group), relative(filepath.Join(m.out, group[0].into)), relative(log.Name()))
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

// listed is a package as go list tells of it.
type listed struct {
	ImportPath string
	// Stale says that the build cache does not have it.
	Stale bool
}

// list finds the packages that a build compiles. It downloads the modules that have them.
func (m *maker) list(ctx context.Context, group []binary, p *progress, log io.Writer) ([]listed, error) {
	stop := m.screen.follow(func(time.Duration) string { return p.downloadText() })
	defer stop()
	// Without the field EmbedFiles, go list leaves embedded files out of what it judges by, and takes all that have some for stale.
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

// golang runs the go command in a module's folder. What it says goes to the progress and to the log; its output too, unless it is wanted.
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
		_, _ = io.Copy(io.Discard, reader) // a line too long for a scanner
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

// flags are those of the go command that choose the module file and the code. All builds of this repository are trimmed, so that they share
// what they compile.
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

// linkerFlags strip symbols and set the version of Kubernetes. They change nothing that is compiled.
func (m *maker) linkerFlags(of module) (string, error) {
	version, err := kubernetesVersion(filepath.Join(m.source, of.folder, of.file))
	if err != nil {
		return "", err
	}
	number, ok := minor(version)
	if !ok { // CoreDNS has no part of Kubernetes itself
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

// names are the names of binaries, as in a sentence.
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

// relative is a path as people here would write it.
func relative(path string) string {
	if here, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(here, path); err == nil && !strings.HasPrefix(short, "..") {
			return short
		}
	}
	return path
}
