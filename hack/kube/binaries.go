package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// module is a Go module that binaries are built in: a folder below hack/kube and its module file.
type module struct {
	folder, file string
	// tags are the build tags. into is the folder below bin/kube for the binaries.
	tags, into string
}

var (
	newest = module{folder: "controlplane", file: "go.mod"}
	// The oldest supported release requires other versions of the same packages.
	oldest = module{folder: "controlplane", file: "oldest.mod", tags: "oldest", into: "oldest"}
	// CoreDNS has its own module, so that it doesn't affect the versions of the control plane.
	dns = module{folder: "coredns", file: "go.mod"}
)

// binary is a program to make.
type binary struct {
	// name is the name of the file in bin/kube.
	name string
	// module pins the version of the package.
	module
	// pkg is the package as an argument of the go command.
	pkg string
}

// cmd is the prefix of the packages of Kubernetes' own programs.
const cmd = "k8s.io/kubernetes/cmd/"

var (
	controlPlane = []binary{
		{"etcd", newest, "go.etcd.io/etcd/server/v3"},
		{"kube-apiserver", newest, cmd + "kube-apiserver"},
		{"controllers", newest, "./controllers"},
		{"kubectl", newest, cmd + "kubectl"},
	}
	sets = map[string][]binary{
		"controlplane": controlPlane,
		"demo":         controlPlane,
		"node": {
			{"kube-controller-manager", newest, cmd + "kube-controller-manager"},
			{"kubelet", newest, cmd + "kubelet"},
			{"kube-scheduler", newest, cmd + "kube-scheduler"},
			{"kube-proxy", newest, cmd + "kube-proxy"},
			{"coredns", dns, "."},
		},
		"oldest": {
			{"kube-apiserver", oldest, cmd + "kube-apiserver"},
			{"controllers", oldest, "./controllers"},
		},
	}
)

// built returns the name of the file that the go command writes.
func (b binary) built() string {
	switch b.name {
	case "etcd":
		return "server"
	default:
		return b.name
	}
}

// groups returns the binaries grouped by module. One go command builds each group.
func groups(binaries []binary) [][]binary {
	var found [][]binary
	for _, b := range binaries {
		i := slices.IndexFunc(found, func(group []binary) bool { return group[0].module == b.module })
		if i < 0 {
			found = append(found, nil)
			i = len(found) - 1
		}
		found[i] = append(found[i], b)
	}
	return found
}

func without(binaries []binary, name string) []binary {
	return slices.DeleteFunc(slices.Clone(binaries), func(b binary) bool { return b.name == name })
}

// accepted returns the pins with which a binary is up to date: that of its source and, if archives may be
// used, that of the archive.
func (m *maker) accepted(b binary) (map[string]bool, error) {
	pin, err := m.pin(b)
	if err != nil {
		return nil, err
	}
	accepted := map[string]bool{pin: true}
	if archive, ok := m.archiveOf(b); ok {
		accepted[archive.pin()] = true
	}
	return accepted, nil
}

// pin returns the digest of everything that determines the binary: the files of its module and, if the
// program is part of this repository, its code.
func (m *maker) pin(b binary) (string, error) {
	folder := filepath.Join(m.source, b.folder)
	files := []string{filepath.Join(folder, b.file), filepath.Join(folder, sumFile(b.file))}
	if strings.HasPrefix(b.pkg, ".") {
		code, err := filepath.Glob(filepath.Join(folder, b.pkg, "*.go"))
		if err != nil {
			return "", err
		}
		files = append(files, code...)
	}
	digest := sha256.New()
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		digest.Write(content)
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

func sumFile(modFile string) string { return strings.TrimSuffix(modFile, ".mod") + ".sum" }

// kubernetesVersion returns the version of Kubernetes that a module file requires, such as v1.37.2, or an
// empty string.
func kubernetesVersion(modFile string) (string, error) {
	content, err := os.ReadFile(modFile)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == "k8s.io/kubernetes" && strings.HasPrefix(fields[1], "v") {
			return fields[1], nil
		}
	}
	return "", nil
}

// hasKubectl reports whether the kubectl in PATH fits the API server. Kubernetes supports a skew of one minor
// version in both directions.
func (m *maker) hasKubectl(ctx context.Context) bool {
	want, err := kubernetesVersion(filepath.Join(m.source, newest.folder, newest.file))
	if err != nil {
		return false
	}
	path, err := exec.LookPath("kubectl")
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version", "--client", "--output=json").Output()
	if err != nil {
		return false
	}
	var answer struct {
		ClientVersion struct{ GitVersion string }
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return false
	}
	have := answer.ClientVersion.GitVersion
	if !near(have, want) {
		m.screen.say("%s has version %s, which is more than one minor version away from %s. Making another one.", path, have, want)
		return false
	}
	m.screen.say("Using %s, version %s.", path, have)
	return true
}

// near reports whether two versions such as v1.37.2 differ by at most one minor version.
func near(a, b string) bool {
	minorA, okA := minor(a)
	minorB, okB := minor(b)
	return okA && okB && minorA-minorB <= 1 && minorB-minorA <= 1
}

// minor returns the minor version of a version 1 of Kubernetes.
func minor(version string) (int, bool) {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) < 3 || parts[0] != "1" {
		return 0, false
	}
	number, err := strconv.Atoi(parts[1])
	return number, err == nil
}
