// Package docs tests that the pages and files of docs/ are correct: it runs their commands, applies their objects, and checks their links.
//
// Every fenced block of README.md and docs/**/*.md has a language, which determines how it is tested:
//
//	sh         commands. One bash with -euo pipefail runs those of a page from top to bottom, in a copy of the repository. The page has its own
//	           control plane with config/default applied. The operator and the verifier run as long as their Deployments have pods.
//	           KUBECONFIG, VERIFIER_HTTP and VERIFIER_GRPC are set, and GATEWAY if the page is about a gateway that runs here.
//	console    commands after "$ ", continued after "> ", and their output. They run among the page's other commands and must print what is
//	           shown. If a line of the output starts with "error", the command must fail; otherwise it must not. In the output, a line "..."
//	           stands for any lines, "..." in a line and <a placeholder> for any text, and spaces for any spaces. Times, ages, UIDs and
//	           loopback ports may differ.
//	yaml       whole objects. An API server with their kinds must accept them with strict validation. A block that starts with a comment such as
//	           "# values.yaml" is a fragment of that file: see fragments_test.go. If the file exists beside the page, the fragment must be a
//	           part of it, word for word.
//	json       one or more JSON documents.
//	flags      flags, one per line, of one of the product's programs or of kube-apiserver.
//	go, nginx, caddyfile    a fragment, as for yaml.
//	mermaid    a diagram. A test in internal/lifecycle compares the diagram of the states of a key with their table.
//
// A block that needs something that isn't available is preceded by a line <!-- not run: REASON -->, with one of the reasons below. It is still
// parsed, and kubectl must know its subcommands and flags.
package docs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// reasons lists why a block may not be run.
var reasons = []string{
	"needs a node",
	"needs a registry",
	"needs kind, k3d or minikube",
	"needs a cluster of its own", // what it does would take this page's control plane away
	"needs the gateway",          // one that can't be run here
	"needs Argo CD", "needs Flux", "needs Helm", "needs Prometheus", "needs cert-manager",
	"test/install runs it, on a control plane of its own",
	"builds for minutes",
	"stays up until it is stopped",
}

var languages = []string{"sh", "console", "yaml", "json", "flags", "go", "nginx", "caddyfile", "mermaid"}

// block is a fenced block of a page.
type block struct {
	page     string // relative to the repository's root
	line     int    // of the opening fence
	language string
	text     string
	notRun   string // the reason; "" if the block is run
}

var notRun = regexp.MustCompile(`^<!-- not run: (.*) -->$`)

// blocks returns the blocks of a page in order, and the violations of the convention.
func blocks(t *testing.T, path string) (found []block, problems []string) {
	t.Helper()
	problem := func(line int, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s:%d: ", path, line)+fmt.Sprintf(format, args...))
	}
	var (
		current *block
		reason  string
		before  string // the previous line
	)
	for number, line := range strings.Split(page(t, path), "\n") {
		number++
		switch {
		case current != nil && line == "```":
			found = append(found, *current)
			current = nil
		case current != nil:
			current.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			language, _, _ := strings.Cut(strings.TrimPrefix(line, "```"), " ")
			current = &block{page: path, line: number, language: language, notRun: reason}
			reason = ""
			if !slices.Contains(languages, language) {
				problem(number, "a block in %q; want one of %s", language, strings.Join(languages, ", "))
			}
		case reason != "":
			problem(number, "`not run` must be right before a block")
			reason = ""
		case notRun.MatchString(line):
			reason = notRun.FindStringSubmatch(line)[1]
			if !slices.Contains(reasons, reason) {
				problem(number, "not run for %q; want one of: %s", reason, strings.Join(reasons, ", "))
			}
		case strings.Contains(line, "```"):
			problem(number, "a fence must start its line: this block would not be found")
		case before == "" && (strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t")):
			problem(number, "an indented block has no language: fence it")
		}
		before = line
	}
	if current != nil {
		problem(current.line, "the block has no closing fence")
	}
	return found, problems
}

// allBlocks returns the blocks of all pages in the given languages.
func allBlocks(t *testing.T, languages ...string) []block {
	t.Helper()
	var found []block
	for _, path := range pages(t) {
		all, _ := blocks(t, path)
		for _, b := range all {
			if slices.Contains(languages, b.language) {
				found = append(found, b)
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("no page has a block in %v, so the test tests nothing", languages)
	}
	return found
}

// pages returns README.md and all pages in docs/, relative to the repository's root.
func pages(t *testing.T) []string {
	t.Helper()
	found := []string{"README.md"}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			path, err = filepath.Rel(root, path)
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) < 8 {
		t.Fatalf("pages: %v, %v", found, err)
	}
	return found
}

// step is one command or several, and their output if the page shows it.
type step struct {
	commands string
	output   string
	shown    bool
}

// steps returns the steps of a block of sh or console.
func (b block) steps(t *testing.T) []step {
	t.Helper()
	if b.language == "sh" {
		return []step{{commands: b.text}}
	}
	var all []step
	for line := range strings.Lines(b.text) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		more, isMore := strings.CutPrefix(line, "> ")
		switch {
		case isCommand:
			all = append(all, step{commands: command, shown: true})
		case len(all) == 0:
			t.Errorf("%s:%d: output before the first command", b.page, b.line)
			return nil
		case isMore && all[len(all)-1].output == "":
			all[len(all)-1].commands += more
		default:
			all[len(all)-1].output += line
		}
	}
	return all
}

func TestPagesKeepToTheConvention(t *testing.T) {
	for _, path := range pages(t) {
		_, problems := blocks(t, path)
		for _, problem := range problems {
			t.Error(problem)
		}
	}
}

// TestProseOfPagesIsWrapped finds lines of more than 120 characters outside of blocks and tables. docs/reference is generated.
func TestProseOfPagesIsWrapped(t *testing.T) {
	const most = 120
	for _, path := range pages(t) {
		if strings.HasPrefix(path, "docs/reference/") {
			continue
		}
		fenced := false
		for number, line := range strings.Split(page(t, path), "\n") {
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
			}
			table := strings.HasPrefix(strings.TrimSpace(line), "|")
			if length := utf8.RuneCountInString(line); length > most && !fenced && !table {
				t.Errorf("%s:%d: %d characters, want at most %d", path, number+1, length, most)
			}
		}
	}
}

func TestShellOfPagesParses(t *testing.T) {
	for _, b := range allBlocks(t, "sh", "console") {
		for _, s := range b.steps(t) {
			command := exec.CommandContext(t.Context(), "bash", "-n")
			command.Stdin = strings.NewReader(s.commands)
			if out, err := command.CombinedOutput(); err != nil || len(out) > 0 { // an unfinished here-document is only a warning
				t.Errorf("%s:%d: %v\n%s", b.page, b.line, err, out)
			}
		}
	}
}

func TestJSONOfPagesParses(t *testing.T) {
	for _, b := range allBlocks(t, "json") {
		decoder := json.NewDecoder(strings.NewReader(b.text))
		for {
			var document any
			err := decoder.Decode(&document)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s:%d: %v", b.page, b.line, err)
				break
			}
		}
	}
}
