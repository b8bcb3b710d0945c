package docs

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/gateway"
)

// pageTimeout is long because the machine may be busy.
const pageTimeout = 10 * time.Minute

// TestCommandsOfPagesWork runs the commands of each page on a control plane of its own, so that pages don't affect one another.
func TestCommandsOfPagesWork(t *testing.T) {
	t.Parallel()
	for _, path := range pages(t) {
		t.Run(path, func(t *testing.T) {
			all, _ := blocks(t, path)
			var run []block
			for _, b := range all {
				if slices.Contains([]string{"sh", "console"}, b.language) && b.notRun == "" {
					run = append(run, b)
				}
			}
			if len(run) == 0 {
				t.Skip("nothing to run")
			}
			t.Parallel() // pages mostly wait
			ctx, cancel := context.WithTimeout(t.Context(), pageTimeout)
			defer cancel()
			runPage(ctx, t, run, environment(ctx, t, path))
		})
	}
}

// runPage runs the blocks of a page in one bash, and compares the output with what the page shows.
func runPage(ctx context.Context, t *testing.T, run []block, env []string) {
	t.Helper()
	type executed struct {
		block
		step
	}
	var (
		all    []executed
		script strings.Builder
		out    = t.TempDir()
	)
	script.WriteString("set -euo pipefail\n")
	address, err := controlplane.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	// The port that a page uses may be taken here.
	elsewhere := strings.NewReplacer("127.0.0.1:18000", address)
	for _, b := range run {
		for _, s := range b.steps(t) {
			file := filepath.Join(out, strconv.Itoa(len(all)))
			// A command that fails as shown must not end the script.
			before, after := "", ""
			if s.failsAsShown() {
				before, after = "set +e\n", "echo $? >"+file+".status\nset -e\n"
			}
			fmt.Fprintf(&script, "%secho %d >%s/at\n{\n%s} >%s 2>&1 </dev/null\n%s", before, len(all), out, elsewhere.Replace(s.commands), file, after)
			all = append(all, executed{b, s})
		}
	}
	fmt.Fprintf(&script, "echo %d >%s/at\n", len(all), out)

	command := exec.CommandContext(ctx, "bash")
	command.Dir = repository(t)
	command.Stdin = strings.NewReader(script.String())
	command.Env = append(os.Environ(), env...)
	// In a process group of its own, what a page leaves running can be stopped.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	err = command.Start()
	if err == nil {
		err = command.Wait()
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGTERM) // stop what the page left running
	}

	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	at, atErr := strconv.Atoi(strings.TrimSpace(read("at")))
	if atErr != nil {
		t.Fatal(atErr)
	}
	for i, e := range all[:min(at, len(all))] {
		printed := read(strconv.Itoa(i))
		if e.failsAsShown() && strings.TrimSpace(read(strconv.Itoa(i)+".status")) == "0" {
			t.Errorf("%s:%d: this should have failed, as the page shows\n$ %s%s", e.page, e.line, e.commands, redact(printed))
		}
		if e.shown && !shows(e.output, printed) {
			t.Errorf("%s:%d: the page shows\n%s\nbut the commands print\n%s", e.page, e.line, e.output, redact(printed))
		}
	}
	if at < len(all) {
		e := all[at]
		t.Fatalf("%s:%d: %v\n$ %s%s", e.page, e.line, err, e.commands, redact(read(strconv.Itoa(at))))
	}
	if err != nil {
		t.Fatal(err)
	}
}

var failure = regexp.MustCompile(`(?mi)^error`)

// failsAsShown reports whether the page shows that the commands fail.
func (s step) failsAsShown() bool { return s.shown && failure.MatchString(s.output) }

// secrets matches what no failure of a test may print.
var secrets = regexp.MustCompile(`ak_[0-9A-Za-z]{5,}|eyJ[\w-]+\.[\w.-]+`)

func redact(text string) string { return secrets.ReplaceAllString(text, "<token>") }

// volatile lists the parts of an output that change from run to run: what the page shows, and what may be printed instead.
var volatile = []struct{ shown, printed string }{
	{`\.\.\.`, `.*`},
	{`<[^<>]+>`, `\S+`},
	{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z`, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z`},
	{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, `[0-9a-f-]{36}`},
	{`127\.0\.0\.1:\d+`, `127\.0\.0\.1:\d+`},
	{` +\d+[smhd](?:\d+[smhd])?$`, ` +(?:\d+[smhd])+`}, // an age at the end of its line
	{` +`, ` +`},
}

// shows reports whether a page shows what was printed.
func shows(shown, printed string) bool {
	var alternatives, want strings.Builder
	for i, v := range volatile {
		if i > 0 {
			alternatives.WriteByte('|')
		}
		alternatives.WriteString("(" + v.shown + ")")
	}
	changing := regexp.MustCompile(alternatives.String())
	want.WriteString(`\A`)
	for _, line := range lines(shown) {
		if line == "..." {
			want.WriteString(`(?:.*\n)*`)
			continue
		}
		rest := 0
		for _, match := range changing.FindAllStringSubmatchIndex(line, -1) {
			want.WriteString(regexp.QuoteMeta(line[rest:match[0]]))
			for i, v := range volatile {
				if match[2+2*i] >= 0 {
					want.WriteString(v.printed)
				}
			}
			rest = match[1]
		}
		want.WriteString(regexp.QuoteMeta(line[rest:]) + "\n")
	}
	want.WriteString(`\z`)
	return regexp.MustCompile(want.String()).MatchString(strings.Join(append(lines(printed), ""), "\n"))
}

// lines returns the lines of a text without trailing spaces and without empty lines at its end.
func lines(text string) []string {
	var all []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n "), "\n") {
		all = append(all, strings.TrimRight(line, "\r "))
	}
	return all
}

func TestShowsToleratesWhatChangesAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		shown, printed string
		want           bool
	}{
		{"NAME   AGE\na      3s\n", "NAME       AGE\na          1m4s\n", true},
		{"NAME   AGE\na      3s\n", "NAME       AGE\nb          1m4s\n", false},
		{"a\n...\nz\n", "a\nb\nc\nz\n", true},
		{"a\n...\n", "a\n", true},
		{"a\n...\nz\n", "b\nz\n", false},
		{"a\n", "a\nb\n", false},
		{"a\nb\n", "a\n", false},
		{"ak_<token>\n", "ak_0123\n", true},
		{"ak_<token>\n", "\n", false},
		{"HTTP/1.1 200 OK\n...\n", "HTTP/1.1 200 OK\r\nDate: x\r\n\r\n", true},
		{"HTTP/1.1 200 OK\n...\n", "HTTP/1.1 403 Forbidden\r\n\r\n", false},
		{"until 2026-11-24T08:28:59Z\n", "until 2030-01-01T00:00:00Z\n", true},
		{"until 2026-11-24T08:28:59Z\n", "until never\n", false},
		{"life 90d of it\n", "life 30d of it\n", false},
		{"a.b\n", "axb\n", false},
	} {
		if got := shows(c.shown, c.printed); got != c.want {
			t.Errorf("%q shows %q: %t", c.shown, c.printed, got)
		}
	}
}

func TestFailuresShowNoToken(t *testing.T) {
	text := redact("token ak_" + strings.Repeat("x", 49) + " of eyJhbGciOi.eyJpc3Mi.c2ln end")
	if text != "token <token> of <token> end" {
		t.Error("something was left of a token")
	}
}

// environment starts what the commands of a page need, and returns the environment variables for them.
func environment(ctx context.Context, t *testing.T, path string) []string {
	t.Helper()
	dir := t.TempDir()
	options := controlplane.Options{Logs: os.Getenv("CONTROLPLANE_LOGS")}
	var at controlplane.VerifierAddresses
	if path == "docs/gateways/kube-apiserver.md" { // the API server must know the verifier's address
		at = verifierAddresses(t)
		options.APIServer = tokenWebhook(t, dir, at.HTTP)
	}
	plane, err := controlplane.StartInstalled(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	if at.HTTP == "" {
		at = verifierAddresses(t)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := plane.AdminKubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{".curlrc": "no-progress-meter\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{
		"KUBECONFIG=" + kubeconfig, "PATH=" + filepath.Dir(plane.Kubectl()) + ":" + filepath.Join(plane.Root, "bin") + ":" + os.Getenv("PATH"), "CURL_HOME=" + dir,
		"VERIFIER_HTTP=http://" + at.HTTP, "VERIFIER_GRPC=" + at.GRPC,
	}

	// Readers of most pages call the verifier themselves. On the pages of gateways, a gateway calls it for them.
	client := "--peer-is-client"
	if strings.HasPrefix(path, "docs/gateways/") {
		client = "--trusted-proxies=127.0.0.1/32"
	}
	startNode(ctx, t, plane, controlplane.Namespace, map[string]func(context.Context) (*controlplane.Process, error){
		controlplane.ServiceAccount: func(ctx context.Context) (*controlplane.Process, error) {
			operator, err := plane.StartOperator(ctx, logOf(t, "apikey-operator"))
			if err != nil {
				return nil, err
			}
			return operator.Process, nil
		},
		controlplane.VerifierAccount: func(ctx context.Context) (*controlplane.Process, error) {
			verifier, err := plane.StartVerifier(ctx, logOf(t, "apikey-verifier"), at, client, "--drain-delay=0s")
			if err != nil {
				return nil, err
			}
			return verifier.Process, verifier.WaitHTTP(ctx, verifier.Probes+"/readyz")
		},
	})
	if g, ok := runnable[path]; ok {
		if _, installed := gateway.Find(filepath.Join("..", ".."), g.program); !installed {
			t.Skip("LEFT OUT: " + g.program + " is not installed, so this page's commands are not tested")
		}
		env = append(env, "GATEWAY="+strings.TrimSuffix(startGateway(t, g.start, at.HTTP, ordersAPI(t)), "/orders"))
	}
	return env
}

func verifierAddresses(t *testing.T) controlplane.VerifierAddresses {
	t.Helper()
	at, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// logOf returns a file for a program's log. The log is shown if the test fails.
func logOf(t *testing.T, program string) *os.File {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("log of %s:\n%s", program, redact(string(text)))
		}
	})
	return log
}

// runnable lists the gateways that run here, by their pages.
var runnable = map[string]struct {
	program string
	start   starter
}{
	"docs/gateways/nginx.md":   {"nginx", gateway.Nginx},
	"docs/gateways/caddy.md":   {"caddy", gateway.Caddy},
	"docs/gateways/traefik.md": {"traefik", gateway.Traefik},
}

// ordersAPI starts an API that answers with the identity that the gateway passes on, and returns its address.
func ordersAPI(t *testing.T) string {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "orders for %s/%s\n", r.Header.Get("X-Apikey-Namespace"), r.Header.Get("X-Apikey-Name")) //nolint:gosec // text for a terminal
	}))
	t.Cleanup(api.Close)
	return api.Listener.Addr().String()
}

// tokenWebhook returns the API server's flags in docs/gateways/kube-apiserver.md, for a verifier without TLS.
func tokenWebhook(t *testing.T, dir, verifier string) map[string]string {
	t.Helper()
	config := strings.NewReplacer(
		"https://apikey-verifier.apikey-operator-system:9443", "http://"+verifier,
		"    certificate-authority: /etc/kubernetes/apikey-verifier/ca.crt\n", "",
	).Replace(page(t, "docs", "gateways", "kube-apiserver-webhook.yaml"))
	file := filepath.Join(dir, "webhook.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"authentication-token-webhook-config-file": file,
		"authentication-token-webhook-version":     "v1",
		"authentication-token-webhook-cache-ttl":   "0s",
		"api-audiences":                            "https://kubernetes.default.svc",
	}
}
