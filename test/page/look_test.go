package page

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// The checker of accessibility. Its licence, the MPL, would bind this repository if it was part of it.
const (
	axePackage = "axe-core@4.14.1"
	axeDigest  = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
)

// axe returns the script of axe-core. npm downloads it once to bin/.
func axe() string {
	GinkgoHelper()
	path := filepath.Join(plane.Root, "bin", "axe-core", "axe.min.js")
	if _, err := os.Stat(path); err != nil {
		_, err := exec.LookPath("npm")
		Expect(err).NotTo(HaveOccurred(), "the check of accessibility needs npm, once: apt-get install npm")
		folder := GinkgoT().TempDir()
		for _, command := range [][]string{{"npm", "pack", "--silent", axePackage}, {"sh", "-c", "tar xzf axe-core-*.tgz package/axe.min.js"}} {
			run := exec.CommandContext(ctx, command[0], command[1:]...)
			run.Dir = folder
			output, err := run.CombinedOutput()
			Expect(err).NotTo(HaveOccurred(), "%s", output)
		}
		text, err := os.ReadFile(filepath.Join(folder, "package", "axe.min.js"))
		Expect(err).NotTo(HaveOccurred())
		Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
		Expect(os.WriteFile(path, text, 0o600)).To(Succeed())
	}
	text, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	digest := sha256.Sum256(text)
	Expect(hex.EncodeToString(digest[:])).To(Equal(axeDigest), "%s is another file than expected: remove it", path)
	return string(text)
}

func color(dark bool) string {
	if dark {
		return "dark"
	}
	return "light"
}

// accessible checks the view with axe-core, in both colors and at both sizes, and takes pictures, which are those in docs/images.
func (t *tab) accessible(view, axe string) {
	GinkgoHelper()
	for _, width := range []int64{1280, 320} {
		for _, dark := range []bool{false, true} {
			t.size(width, 800)
			t.dark(dark)
			t.picture(fmt.Sprintf("%s-%s-%d", view, color(dark), width))
			Expect(t.eval("document.documentElement.scrollWidth <= innerWidth && [...document.querySelectorAll('dialog[open], dialog[open] .body')].every((e) => e.scrollWidth <= e.clientWidth)")).
				To(Equal("true"), "%s scrolls sideways at %d pixels", view, width)
			rules := "" // all
			if dark {
				rules = `runOnly: ["color-contrast"],` // nothing else differs between the colors
			}
			if t.eval("typeof window.axe") == `"undefined"` {
				Expect(t.Load(axe)).To(Succeed())
			}
			var found []struct {
				ID, Help string
				Nodes    []struct{ HTML, FailureSummary string }
			}
			Expect(json.Unmarshal([]byte(t.eval(`axe.run({`+rules+` resultTypes: ["violations"]}).then((r) => r.violations.filter((v) => ["serious", "critical"].includes(v.impact))
				.map((v) => ({id: v.id, help: v.help, nodes: v.nodes.map((n) => ({html: n.html, failureSummary: n.failureSummary}))})))`)), &found)).To(Succeed())
			Expect(found).To(BeEmpty(), "%s, %s, %d pixels", view, color(dark), width)
		}
	}
	t.size(1280, 900)
	t.dark(false)
}

// shop creates a namespace with keys as a shop has them.
func shop(name string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	with := func(purpose, after string, roles, cidrs []string) func(*v1alpha1.ApiKey) {
		return func(k *v1alpha1.ApiKey) {
			k.Spec.DisplayName, k.Spec.Roles, k.Spec.CIDRs = purpose, roles, cidrs
			k.Spec.Expiry = v1alpha1.ApiKeyExpiry{After: v1alpha1.Duration(after)}
			if after == "" {
				k.Spec.Expiry = v1alpha1.ApiKeyExpiry{Never: new(true)}
			}
		}
	}
	of := func(team v1alpha1.AttributeValue) func(*v1alpha1.ApiKey) {
		return func(k *v1alpha1.ApiKey) { k.Spec.Attributes = map[string]v1alpha1.AttributeValue{"owner": team} }
	}
	add(name, "web-shop", with("Web shop, order page", "90d", []string{owner}, []string{"10.20.0.0/16"}), of("team-shop"))
	add(name, "billing-export", with("Nightly export to the bookkeeping", "365d", []string{"org.permission.invoice.read", read}, nil), of("team-billing"))
	add(name, "warehouse-scanner", with("Hand scanners, hall 2", "60d", []string{"org.permission.stock.read", read, write}, []string{"192.168.14.0/24"}), of("team-logistics"))
	add(name, "partner-acme", with("ACME, order status", "5d", []string{read}, []string{"10.31.4.0/24", "2001:db8:40::/48"}))
	add(name, "status-page", with("Public status page", "", []string{"org.permission.stock.read"}, nil), of("team-shop"))
	add(name, "load-test", with("Load test of March", "2s", []string{read}, []string{"10.99.0.0/24"}))
	add(name, "mobile-app", with("Mobile app, beta", "30d", []string{read}, nil), func(k *v1alpha1.ApiKey) { k.Spec.Suspend = new(true) })
	add(name, "reporting", with("Sales dashboard", "90d", []string{"org.permission.sales.read"}, nil))
	for _, key := range []string{"web-shop", "billing-export", "warehouse-scanner", "partner-acme", "status-page", "mobile-app"} {
		Eventually(func() bool { return get(name, key).IsReady() }).Should(BeTrue())
	}
	Eventually(func() bool { return get(name, "load-test").IsExpired() }).Should(BeTrue())
	patch(name, "web-shop", fmt.Sprintf(`{"metadata": {"annotations": {%q: "1"}}}`, v1alpha1.AnnotationRotate))
	verifier := startVerifier()
	for _, key := range []string{"billing-export", "status-page"} {
		use(verifier, name, key)
	}
}

var _ = Describe("Each view", SpecPriority(1), func() {
	It("can be used by everybody: light, dark, and 320 pixels wide", func() {
		script := axe()
		shop("shop")
		empty := namespace()
		t := newTab(shared)
		c := start(rootConfig, "shop")
		t.visit(c.link)
		t.accessible("link", script)
		t.click("button.primary")
		t.is(`[...document.querySelectorAll("#namespace option")].some((o) => o.value === "shop")`)
		t.visit(strings.Trim(t.eval("location.origin + location.pathname"), `"`) + "?namespace=shop")
		t.shows("#rows", "Unknown role")
		t.accessible("grid", script)
		t.fill("#filter", "no such key")
		t.accessible("none", script)
		t.click("#unfilter")

		t.click("[data-dialog]")
		t.shows("[data-shape]", "It works until")
		t.accessible("form", script)
		t.click(`[value="` + owner + `"]`)
		t.fill("#f-networks", "10.20.30.40/16")
		t.click(".segments label:nth-child(6)")
		t.click("dialog .primary")
		t.is("document.querySelector('[data-refusal]')")
		t.accessible("refused", script)
		t.set("#f-networks", "10.20.0.0/16")
		t.fill("#f-name", "order-desk")
		t.click("dialog .primary")
		t.is("document.querySelector('#copy') && !document.querySelector('#copy').disabled")
		log.Remember(t.text("#token"))
		// The picture shows a token that is none.
		t.eval(`(document.querySelector("#token").textContent = "ak_" + "EXAMPLE".repeat(7), 1)`)
		t.accessible("token", script)
		t.reload()
		t.shows("#part", "Its token was shown once")
		t.accessible("shown", script)
		t.click("[data-send]")
		t.loaded(".danger")
		t.accessible("key", script)
		t.click(`[data-dialog$="/rotate"]`)
		t.shows("dialog h2", "Rotate order-desk?")
		t.accessible("rotate", script)
		t.click("[data-close]")
		t.is("!document.querySelector('dialog').open")
		t.click(".danger")
		t.shows("dialog h2", "Delete order-desk?")
		t.accessible("delete", script)
		t.click("[data-close]")
		t.click(".brand")
		t.loaded("#namespace")
		base := strings.Trim(t.eval("location.origin + location.pathname"), `"`)
		t.visit(base + "keys/shop/web-shop/")
		t.shows("#part", "Ends in ")
		t.accessible("overlap", script)
		t.click(`[data-dialog$="/retire"]`)
		t.shows("dialog h2", "End the old token of web-shop?")
		t.accessible("retire", script)
		t.visit(base + "keys/shop/absent/")
		t.shows("h1", "The key absent can't be shown")
		t.accessible("problem", script)
		t.visit(base + "?namespace=" + empty)
		t.shows("#empty", "No API keys here yet")
		t.accessible("empty", script)
		t.click("[data-dialog]")
		t.fill("#f-name", "worker")
		t.click(`[value="` + read + `"]`)
		t.click(".cards label:nth-child(2)")
		t.click("dialog .primary")
		t.shows("#part", "secretName: worker")
		t.accessible("workload", script)

		viewer := newTab(shared)
		viewer.open(start(having("shop", onKeys("get", "list", "watch")), "shop"))
		viewer.shows("#may-not", "You may not create")
		viewer.accessible("viewer", script)
		stranger := newTab(shared)
		stranger.open(start(having(empty), empty))
		stranger.shows("#part", "can't be shown")
		stranger.accessible("stranger", script)
	})
})
