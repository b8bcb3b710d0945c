package page

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/creack/pty"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/browser"
)

var _ = Describe("An attacker", func() {
	It("on another port, with a page in the same browser, reads and changes nothing", func() {
		ns := namespace()
		add(ns, "victim")
		t := newTab(shared)
		c := start(rootConfig, ns)
		t.open(c)
		t.shows("#rows", "victim")
		inside := strings.Trim(t.eval("location.origin + location.pathname"), `"`)
		form := strings.Trim(t.eval("document.querySelector('meta[name=form-token]').content"), `"`)

		// The worst case: the attacker even knows the path and the form token, and cookies don't know ports.
		var cookies atomic.Value
		cookies.Store("")
		evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, strings.TrimPrefix(inside, c.origin)) {
				cookies.Store(r.Header.Get("Cookie"))
			}
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<!doctype html><title>evil</title><body></body>")
		}))
		DeferCleanup(evil.Close)
		t.visit(evil.URL)
		for _, attempt := range []string{
			`fetch(%q, {credentials: "include"}).then((r) => r.text()).catch(() => "refused")`,
			`fetch(%q + "keys/` + ns + `/victim/delete", {method: "POST", credentials: "include", headers: {"X-Form-Token": "` + form + `"}}).then((r) => r.text()).catch(() => "refused")`,
			`fetch(%q + "events", {method: "POST", credentials: "include", mode: "no-cors"}).then((r) => r.text()).then((text) => text || "refused").catch(() => "refused")`,
			`new Promise((done) => { const s = document.createElement("script"); s.src = %q + "assets/page.js"; s.onload = () => done("loaded"); s.onerror = () => done("refused"); document.body.append(s); })`,
			`new Promise((done) => { const f = document.createElement("iframe"); f.src = %q; f.onload = () => { try { done(f.contentDocument ? f.contentDocument.body.innerText : "refused"); } catch { done("refused"); } }; document.body.append(f); })`,
		} {
			Expect(t.eval(fmt.Sprintf(attempt, inside))).To(Or(Equal(`"refused"`), Equal(`""`)), attempt)
		}
		// A form needs no permission to send, but can't send the header.
		t.eval(`(() => { const f = document.createElement("form"); f.method = "post"; f.action = "` + inside + "keys/" + ns + `/victim/delete"; document.body.append(f); f.submit(); })()`)
		t.shows("body", "This request does not come from the page itself")
		Expect(get(ns, "victim").DeletionTimestamp).To(BeNil())
		// A link from there is refused, too.
		t.visit(evil.URL)
		t.eval(`(() => { const a = document.createElement("a"); a.href = "` + inside + `"; document.body.append(a); a.click(); })()`)
		t.shows("body", "This request does not come from the page itself")
		// The browser sends the cookie to another port if it knows the path, so the path must be secret, and the cookie is not enough.
		t.visit(evil.URL + strings.TrimPrefix(inside, c.origin))
		stolen, ok := cookies.Load().(string)
		Expect(ok && stolen != "").To(BeTrue(), "cookies don't know ports; if they do, this test can be simpler")
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, inside+"keys/"+ns+"/victim/delete", nil)
		Expect(err).NotTo(HaveOccurred())
		request.Header.Set("Cookie", stolen)
		request.Header.Set("Origin", evil.URL)
		request.Header.Set("Sec-Fetch-Site", "same-site")
		response, err := http.DefaultClient.Do(request)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(response.Body.Close)
		Expect(response.StatusCode).To(Equal(http.StatusForbidden))
		Expect(get(ns, "victim").DeletionTimestamp).To(BeNil())
	})

	It("with a name that is HTML gets text", func() {
		ns := namespace()
		const html = `<img src=x onerror="document.title='owned'"><b>bold</b>`
		add(ns, "shop", func(k *v1alpha1.ApiKey) { k.Spec.DisplayName = html })
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.shows(".c-purpose", "")
		t.shows("#rows", html)
		add(ns, "live", func(k *v1alpha1.ApiKey) { k.Spec.DisplayName = html })
		t.shows("#key-"+strings.ReplaceAll(ns, "-", "\\-")+"\\.live", html)
		t.click("#rows a")
		t.shows(".lead", html)
		t.click(".danger")
		t.shows("dialog", html)
		Expect(t.eval("[document.title.includes('owned'), document.querySelectorAll('main img, main .lead b, dialog img').length]")).To(Equal("[false,0]"))
	})

	It("who uses the link a second time ends the session, for everybody", func() {
		ns := namespace()
		t := newTab(shared)
		c := start(rootConfig, ns)
		t.open(c)
		parsed, err := url.Parse(c.link)
		Expect(err).NotTo(HaveOccurred())
		response, err := http.PostForm(c.origin+"/open", url.Values{"token": {parsed.Query().Get("token")}})
		Expect(err).NotTo(HaveOccurred())
		Expect(response.Body.Close()).To(Succeed())
		Expect(response.StatusCode).To(Equal(http.StatusForbidden))
		Expect(c.exit()).To(Equal(3))
		Expect(c.stderr.String()).To(ContainSubstring("used a second time"))
		t.shows("#trouble", "The page has ended")
	})

	It("who is another user of the machine, with no cookie, gets a sentence", func() {
		c := start(rootConfig, namespace())
		response, err := http.Get(c.origin + "/")
		Expect(err).NotTo(HaveOccurred())
		text, err := io.ReadAll(response.Body)
		Expect(err).NotTo(HaveOccurred())
		Expect(response.Body.Close()).To(Succeed())
		Expect(response.StatusCode).To(Equal(http.StatusForbidden))
		Expect(string(text)).To(ContainSubstring("This page belongs to one browser"))
		Expect(response.Header.Get("Set-Cookie")).To(BeEmpty())
	})

	It("who runs a proxy that HTTP_PROXY names sees nothing", func() {
		var ours, others atomic.Int64
		proxy := listen(func(conn net.Conn) {
			defer func() { _ = conn.Close() }()
			line, err := bufio.NewReader(conn).ReadString('\n')
			switch {
			case err != nil:
			case strings.Contains(line, "127.0.0.1"), strings.Contains(line, "localhost"):
				ours.Add(1)
			default:
				others.Add(1) // what a browser asks its makers
			}
		})
		env := []string{"HTTP_PROXY=http://" + proxy, "http_proxy=http://" + proxy, "HTTPS_PROXY=http://" + proxy, "https_proxy=http://" + proxy, "NO_PROXY=", "no_proxy="}
		for _, variable := range env {
			name, value, _ := strings.Cut(variable, "=")
			GinkgoT().Setenv(name, value)
		}
		ns := namespace()
		behind, err := browser.Start(ctx, env...)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(behind.Close)
		t := newTab(behind)
		t.open(start(rootConfig, ns))
		t.click("[data-dialog]")
		t.fill("#f-name", "shop")
		t.click(`[value="` + read + `"]`)
		t.click("dialog .primary")
		t.takeToken(ns, "shop")
		// The browser does use this proxy for other addresses.
		_ = t.Open("http://example.invalid/") // nothing answers
		Eventually(others.Load).ShouldNot(BeZero())
		Expect(ours.Load()).To(BeZero())
	})
})

var _ = Describe("The command", func() {
	It("ends with the terminal that started it, also in the background", func() {
		process := exec.CommandContext(ctx, filepath.Join(plane.Root, "bin", "kubectl-apikey"), "ui", "--no-browser", "-n", namespace())
		process.Env = append(os.Environ(), "KUBECONFIG="+rootConfig)
		master, slave, err := pty.Open()
		Expect(err).NotTo(HaveOccurred())
		process.Stdin, process.Stdout, process.Stderr = slave, slave, slave
		// A session of its own without a controlling terminal gets no SIGHUP.
		process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		Expect(process.Start()).To(Succeed())
		Expect(slave.Close()).To(Succeed())
		found := make(chan struct{})
		lines := bufio.NewScanner(master)
		go func() {
			defer close(found)
			for lines.Scan() && !link.MatchString(strings.TrimSpace(lines.Text())+"\n") {
			}
		}()
		Eventually(found).Should(BeClosed())
		Expect(master.Close()).To(Succeed())
		ended := make(chan error, 1)
		go func() { ended <- process.Wait() }()
		Eventually(ended).WithTimeout(30 * time.Second).Should(Receive())
	})

	It("refuses a port that is taken, and one that can't be", func() {
		taken := listen(func(net.Conn) {})
		_, port, err := net.SplitHostPort(taken)
		Expect(err).NotTo(HaveOccurred())
		for arg, want := range map[string]string{port: "address already in use", "70000": "--port=70000: must be a port"} {
			process := exec.CommandContext(ctx, filepath.Join(plane.Root, "bin", "kubectl-apikey"), "ui", "--no-browser", "--port", arg)
			process.Env = append(os.Environ(), "KUBECONFIG="+rootConfig)
			output, err := process.CombinedOutput()
			Expect(err).To(HaveOccurred())
			Expect(string(output)).To(ContainSubstring(want))
		}
	})

	It("listens on 127.0.0.1 alone", func() {
		c := start(rootConfig, namespace())
		_, port, err := net.SplitHostPort(strings.TrimPrefix(c.origin, "http://"))
		Expect(err).NotTo(HaveOccurred())
		for _, host := range []string{"127.0.0.2", "::1"} {
			var dialer net.Dialer
			conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
			if err == nil {
				_ = conn.Close()
			}
			Expect(err).To(HaveOccurred(), host)
		}
	})
})
