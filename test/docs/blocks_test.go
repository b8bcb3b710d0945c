// Package docs holds what the pages and files of docs/ say against what it is said of, so that no line of them rots.
//
// Every fenced block of README.md and docs/**/*.md has a language, which says what becomes of it:
//
//	sh         commands. A page's are run from top to bottom by one bash with -euo pipefail, in a copy of the repository, on a control plane of the
//	           page's own, where config/default is applied, and the operator and the verifier run for as long as their Deployments have pods.
//	           KUBECONFIG, VERIFIER_HTTP and VERIFIER_GRPC are set; GATEWAY too where the page is about one that can be run here.
//	console    commands after "$ ", lines that continue them after "> ", and what they print. They are run among the page's others, and print what
//	           is shown. Where "error" begins a line of that, the command must fail; else it must not. In it, a line of "..." is any lines, "..." in a
//	           line and <a placeholder> any text, spaces any spaces, and moments, ages, UIDs and ports of loopback any others.
//	yaml       whole objects: an API server that has their kind takes them, strictly. One that starts with a comment like "# values.yaml" is a fragment
//	           of that file: see fragments_test.go. A fragment that names a file beside the page is a part of that file, word for word.
//	json       one or more JSON documents.
//	flags      one a line, of a program of ours or of kube-apiserver.
//	go, nginx, caddyfile    a fragment, as for yaml.
//	mermaid    a diagram. That of the states of a key is held against their table by a test beside the table.
//
// What needs something that isn't there is preceded by a line <!-- not run: REASON -->, with one of the reasons below. It is parsed all the same, and
// kubectl must know its subcommands and flags.
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
)

// reasons why a block is not run.
var reasons = []string{
	"needs a node",
	"needs a registry",
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
	page     string // from the repository's root
	line     int    // where its fence opens
	language string
	text     string
	notRun   string // the reason; "" if it is run
}

var notRun = regexp.MustCompile(`^<!-- not run: (.*) -->$`)

// blocks are those of a page, in their order; and what in it breaks the convention.
func blocks(t *testing.T, path string) (found []block, problems []string) {
	t.Helper()
	problem := func(line int, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s:%d: ", path, line)+fmt.Sprintf(format, args...))
	}
	var (
		current *block
		reason  string
		before  string // the line before
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
			problem(number, "`not run` stands right before a block, or nowhere")
			reason = ""
		case notRun.MatchString(line):
			reason = notRun.FindStringSubmatch(line)[1]
			if !slices.Contains(reasons, reason) {
				problem(number, "not run for %q; want one of: %s", reason, strings.Join(reasons, ", "))
			}
		case strings.Contains(line, "```"):
			problem(number, "a fence within a line, or indented: nobody would find the block")
		case before == "" && (strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t")):
			problem(number, "an indented block has no language: fence it")
		}
		before = line
	}
	if current != nil {
		problem(current.line, "the block has no end")
	}
	return found, problems
}

// allBlocks are the blocks in some languages, of all pages.
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
		t.Fatalf("no page has a block in %v: the test guards nothing", languages)
	}
	return found
}

// pages are README.md and all pages in docs/, from the repository's root.
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

// step is a command, or several, of a page, and what it prints if that is shown.
type step struct {
	commands string
	output   string
	shown    bool
}

// steps are those of a block of sh or console.
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

func TestShellOfPagesParses(t *testing.T) {
	for _, b := range allBlocks(t, "sh", "console") {
		for _, s := range b.steps(t) {
			command := exec.CommandContext(t.Context(), "bash", "-n")
			command.Stdin = strings.NewReader(s.commands)
			if out, err := command.CombinedOutput(); err != nil || len(out) > 0 { // a document without an end is a warning
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
