package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const kubectl = "../../bin/kube/kubectl"

var (
	longFlag  = regexp.MustCompile(`^\s+(?:-(\w), )?--([\w-]+)\b`)
	usedFlag  = regexp.MustCompile(`^--([\w-]+)`)
	shortFlag = regexp.MustCompile(`^-(\w)`)
	plainWord = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// TestKubectlKnowsTheCommandsOfPages also checks commands that can't be run here.
func TestKubectlKnowsTheCommandsOfPages(t *testing.T) {
	global := flagsOf(t, "options")
	known := map[string][]string{}
	var checked int
	for _, b := range allBlocks(t, "sh", "console") {
		for _, s := range b.steps(t) {
			for _, words := range invocations(s.commands, "kubectl") {
				checked++
				subcommand := subcommandOf(words)
				key := strings.Join(subcommand, " ")
				if known[key] == nil {
					known[key] = append(flagsOf(t, append(slices.Clone(subcommand), "--help")...), global...)
				}
				for _, word := range words {
					if word == "--" {
						break
					}
					name := ""
					if match := usedFlag.FindStringSubmatch(word); match != nil {
						name = match[1]
					} else if match := shortFlag.FindStringSubmatch(word); match != nil {
						name = match[1]
					}
					if name != "" && name != "help" && !slices.Contains(known[key], name) {
						t.Errorf("%s:%d: kubectl %s has no flag %q", b.page, b.line, key, name)
					}
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d commands were found", checked)
	}
}

// invocations returns the words after each call of a program. It doesn't interpret quotes, which is good enough for flags.
func invocations(script, program string) [][]string {
	var found [][]string
	for _, command := range regexp.MustCompile(`\|\||&&|[|;\n]|\$\(`).Split(strings.ReplaceAll(script, "\\\n", " "), -1) {
		words := strings.Fields(command)
		for i, word := range words {
			if word == program {
				found = append(found, words[i+1:])
				break
			}
			if !strings.Contains(word, "=") { // assignments may precede the program
				break
			}
		}
	}
	return found
}

// subcommandOf returns kubectl's subcommand: the first word that belongs to no flag, and the second word after one that only groups.
func subcommandOf(words []string) []string {
	takesValue := []string{"-n", "--namespace", "--context", "--kubeconfig", "--as", "--token"}
	var subcommand []string
	for i := 0; i < len(words) && len(subcommand) < 2; i++ {
		switch {
		case slices.Contains(takesValue, words[i]):
			i++
		case strings.HasPrefix(words[i], "-"):
		case !plainWord.MatchString(words[i]):
			return subcommand
		default:
			subcommand = append(subcommand, words[i])
			if !slices.Contains([]string{"apikey", "auth", "create", "rollout", "config", "set", "cluster-info", "certificate"}, subcommand[0]) {
				return subcommand
			}
		}
	}
	return subcommand
}

// flagsOf returns the names of the flags that kubectl's help lists.
func flagsOf(t *testing.T, args ...string) []string {
	t.Helper()
	command := exec.CommandContext(t.Context(), kubectl, args...)
	command.Env = append(os.Environ(), "PATH="+filepath.Join("..", "..", "bin")+":"+os.Getenv("PATH")) // for plugins
	out, err := command.CombinedOutput()
	if err != nil {
		t.Errorf("kubectl %v: %v\n%s", args, err, out)
	}
	return flagsIn(string(out))
}

func flagsIn(help string) []string {
	flags := []string{"help"}
	for line := range strings.Lines(help) {
		if match := longFlag.FindStringSubmatch(line); match != nil {
			flags = append(flags, match[2])
			if match[1] != "" {
				flags = append(flags, match[1])
			}
		}
	}
	return flags
}

// TestFlagsOfPagesExist checks that each block of flags belongs to a program that has all of them.
func TestFlagsOfPagesExist(t *testing.T) {
	programs := map[string][]string{}
	for name, path := range map[string]string{
		"apikey-operator": "bin/apikey-operator", "apikey-verifier": "bin/apikey-verifier", "kube-apiserver": "bin/kube/kube-apiserver",
	} {
		out, err := exec.CommandContext(t.Context(), filepath.Join("..", "..", path), "--help").CombinedOutput()
		if err != nil {
			t.Fatalf("%s (did you run `make build kube`?): %v", path, err)
		}
		programs[name] = flagsIn(string(out))
		if len(programs[name]) < 10 {
			t.Fatalf("%s lists only %v", name, programs[name])
		}
	}
	for _, b := range allBlocks(t, "flags") {
		var program []string
		for name, flags := range programs {
			if !slices.ContainsFunc(strings.Fields(b.text), func(word string) bool {
				match := usedFlag.FindStringSubmatch(word)
				return match == nil || !slices.Contains(flags, match[1])
			}) {
				program = append(program, name)
			}
		}
		if len(program) == 0 {
			t.Errorf("%s:%d: no single program has all these flags:\n%s", b.page, b.line, b.text)
		}
	}
}

// repository copies the files that git knows, or would add, to a new folder, so that the commands of pages change nothing in the repository.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	list := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	list.Dir = root
	files, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	for file := range strings.SplitSeq(strings.TrimSuffix(string(files), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, file))
		if os.IsNotExist(err) {
			continue // deleted, but not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(copied, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, file), content, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	return copied
}
