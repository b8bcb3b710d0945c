package commands

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/apikey-operator/apikey-operator/internal/reference"
)

// TestHelp compares the help of each verb with its file. Run `go test ./internal/cli/commands -update` after a change.
func TestHelp(t *testing.T) {
	names := []string{""}
	for _, command := range Root(genericiooptions.IOStreams{}).Commands() {
		if command.IsAvailableCommand() {
			names = append(names, command.Name())
		}
	}
	for _, name := range names {
		args, file := []string{name, "--help"}, name
		if name == "" {
			args, file = args[1:], "kubectl-apikey"
		}
		var out, stderr bytes.Buffer
		code := Main(context.Background(), args, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &stderr})
		if code != exitDone || stderr.Len() > 0 {
			t.Errorf("%v: exit code %d, %s", args, code, stderr.String())
		}
		path := filepath.Join("testdata", "help", file+".txt")
		if flag.Lookup("update").Value.String() == "true" { // package reference defines it
			if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path) //nolint:gosec // a file of this test
		if err != nil || string(want) != out.String() {
			t.Errorf("%s differs from the help (%v): run `go test ./internal/cli/commands -update`, and look at the change. The help is now\n%s", path, err, out.String())
		}
		if name != "" && name != "options" && !strings.HasPrefix(out.String(), "Examples:\n") {
			t.Errorf("the help of %s does not begin with an example", name)
		}
	}
}

func TestReferenceOfVerbs(t *testing.T) {
	var text strings.Builder
	root := Root(genericiooptions.IOStreams{})
	root.InitDefaultHelpCmd()
	for _, verb := range root.Commands() {
		if !verb.IsAvailableCommand() || verb.Name() == "help" || verb.Name() == "options" {
			continue
		}
		text.WriteString("## " + verb.Name() + "\n\n")
		for _, part := range []string{verb.Long, verb.Short + "."} {
			if part != "" {
				text.WriteString(part + "\n\n")
				break
			}
		}
		text.WriteString("Usage: `" + verb.UseLine() + "`\n\n")
		if len(verb.Aliases) > 0 {
			text.WriteString("Alias: `" + strings.Join(verb.Aliases, "`, `") + "`.\n\n")
		}
		if verb.HasAvailableLocalFlags() {
			text.WriteString(reference.Flags(verb.LocalNonPersistentFlags()) + "\n")
		}
	}
	reference.Section(t, "kubectl-apikey.md", "verbs", strings.TrimSuffix(text.String(), "\n"))
}

func TestRefuseTokens(t *testing.T) {
	const digits = "0123456789012345678901234567890123456789012345678"
	for _, arg := range []string{
		"ak_" + digits, "--token=ak_" + digits, "Bearer ak_" + digits, "org1_" + digits, "ak_" + digits[:20], `"ak_` + digits + `"`, "x/ak_" + digits,
	} {
		if refuseTokens([]string{"find", arg}) == nil {
			t.Errorf("an argument that looks like a token is accepted (%d characters)", len(arg))
		}
	}
	for _, arg := range []string{
		"shopper", "org.permission.order.read", "--kubeconfig=/tmp/my_kubeconfig", "/tmp/x_abcdefghijklmnopqrstuvwxyz.txt", "ak_123", "a_" + digits,
		"my_file_abcdefghijklmnopqrstuvwx.json", "--expires=2027-01-31T00:00:00Z",
	} {
		if err := refuseTokens([]string{"find", arg}); err != nil {
			t.Errorf("%s: %v", arg, err)
		}
	}
}
