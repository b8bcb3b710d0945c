package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The table of attacks names the spec that holds each off by its full text. A spec that was renamed or has gone is found here.
func TestSpecsNamedInAttacksExist(t *testing.T) {
	_, section, found := strings.Cut(page(t, "docs", "attacks.md"), "\n| attack | what happens | test |\n")
	if !found {
		t.Fatal("docs/attacks.md has no table of attacks")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	folders := []string{"integration", "gateways", "cli", "install", "docs", "release", "page", "../internal/page/gate", "../internal/cli/commands"}
	specs := make([]*regexp.Regexp, 0, 100*len(folders))
	for _, folder := range folders {
		specs = append(specs, specTexts(t, folder)...)
	}
	var names, tables int
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || strings.TrimSpace(cells[0]) == "attack" {
			continue
		}
		tables++
		last := cells[len(cells)-1]
		quoted := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(last, -1)
		if len(quoted) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, name := range quoted {
			names++
			if !matchesAny(specs, name[1]) {
				t.Errorf("no spec is called %q", name[1])
			}
		}
	}
	if tables < 10 || names < tables {
		t.Errorf("%d attacks, %d specs", tables, names)
	}
}

func matchesAny(specs []*regexp.Regexp, name string) bool {
	for _, spec := range specs {
		if spec.MatchString(name) {
			return true
		}
	}
	return false
}

// specTexts returns the full texts of the Ginkgo specs in a folder of test/, and the names of its plain tests. They are patterns, because parts
// of a text may be computed.
func specTexts(t *testing.T, folder string) []*regexp.Regexp {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in test/%s: %v", folder, err)
	}
	var specs []*regexp.Regexp
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Recv == nil && strings.HasPrefix(function.Name.Name, "Test") {
				specs = append(specs, regexp.MustCompile("^"+function.Name.Name+"$"))
			}
		}
		collect(parsed, "", func(pattern string) { specs = append(specs, regexp.MustCompile("^"+pattern+"$")) })
	}
	return specs
}

// collect calls tell for each spec below a node. within is the text of the containers around the node.
func collect(node ast.Node, within string, tell func(pattern string)) {
	ast.Inspect(node, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		name, ok := call.Fun.(*ast.Ident)
		if !ok {
			return true
		}
		switch name.Name {
		case "Describe", "Context", "When", "DescribeTable":
			for _, argument := range call.Args[1:] {
				collect(argument, within+pattern(call.Args[0])+" ", tell)
			}
			return false
		case "It", "Specify", "Entry":
			tell(within + pattern(call.Args[0]))
			return false
		}
		return true
	})
}

// pattern returns a pattern for the text of an expression. A computed part may be anything.
func pattern(expression ast.Expr) string {
	switch e := expression.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return regexp.QuoteMeta(text)
		}
	case *ast.BinaryExpr:
		return pattern(e.X) + pattern(e.Y)
	}
	return ".+"
}
