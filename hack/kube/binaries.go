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

// module is where binaries are built: a folder below hack/kube with a module, and its module file.
type module struct {
	folder, file string
	// tags of the build, and the folder below bin/kube that its binaries go into.
	tags, into string
}

var (
	newest = module{folder: "controlplane", file: "go.mod"}
	// The oldest supported release has its own versions for the same packages.
	oldest = module{folder: "controlplane", file: "oldest.mod", tags: "oldest", into: "oldest"}
	// What CoreDNS needs must not decide what the control plane is made of.
	dns = module{folder: "coredns", file: "go.mod"}
)

// binary is a program to make.
type binary struct {
	// name of the file in bin/kube.
	name string
	// The module that has its package and pins its version.
	module
	// pkg is the package, as the go command takes it.
	pkg string
}

// Kubernetes' own programs are packages of this.
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

// built is the name of the file that the go command writes for a binary.
func (b binary) built() string {
	switch b.name {
	case "etcd":
		return "server"
	default:
		return b.name
	}
}

// groups are the binaries by module, each to be built by one command.
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

// accepted are the pins with which a binary is as it should be: the one of its source and, where archives may be used, the archive's.
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

// pin is the digest of all that decides what is built: the module's files and, where the program is ours, its code.
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

// kubernetesVersion is the version of Kubernetes that a module file requires, such as v1.37.2; "" where it requires none.
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

// hasKubectl tells whether the kubectl of PATH fits the API server: Kubernetes supports one that is a minor version older or newer.
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
		m.screen.say("%s is %s, which is too far from %s: another one is made.", path, have, want)
		return false
	}
	m.screen.say("Using %s, %s.", path, have)
	return true
}

// near tells whether two versions such as v1.37.2 are of the same minor version, or of neighbours.
func near(a, b string) bool {
	minorA, okA := minor(a)
	minorB, okB := minor(b)
	return okA && okB && minorA-minorB <= 1 && minorB-minorA <= 1
}

// minor is the second number of a version of Kubernetes 1.
func minor(version string) (int, bool) {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) < 3 || parts[0] != "1" {
		return 0, false
	}
	number, err := strconv.Atoi(parts[1])
	return number, err == nil
}
