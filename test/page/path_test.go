package page

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/chromedp/chromedp/kb"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

// takeToken reads the token that a tab shows, checks that it is that of the key, and that it is nowhere else.
func (t *tab) takeToken(namespace, name string) {
	GinkgoHelper()
	t.is("document.querySelector('#copy') && !document.querySelector('#copy').disabled")
	text := t.text("#token")
	log.Remember(text)
	found, err := token.Parse(text)
	Expect(err).NotTo(HaveOccurred(), "the page must show a token")
	Expect(get(namespace, name).Status.Hash == found.Digest().String()).To(BeTrue(), "the token is another one")
	Expect(strings.Contains(t.eval("[location.href, document.title, document.cookie, {...localStorage}, {...sessionStorage}]"), text)).To(BeFalse(),
		"the token is in the URL, or is stored")
	Expect(t.eval("fetch(location.href).then((r) => r.text()).then((html) => html.includes(document.querySelector('#token').innerText))")).
		To(Equal("false"), "the token is in the HTML")
}

var _ = Describe("The whole path", func() {
	It("is possible with a mouse: open, add, copy, gone on reload, take, delete", func() {
		ns := namespace()
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.shows("#empty", "No API keys here yet")
		t.click("[data-dialog]")
		t.fill("#f-name", "web-shop")
		t.fill("#f-purpose", "Web shop, order page")
		t.fill("#f-owner", "team-shop")
		t.fill("#f-search", "order desk")
		Expect(t.eval("[...document.querySelectorAll('.choice')].filter((c) => !c.hidden).length")).To(Equal("1"), "roles are searched by description")
		t.click(`[value="` + owner + `"]`)
		t.shows("[data-chosen]", "1 role chosen. Included with it: "+read+", "+write)
		t.click(".segments label:nth-child(2)")
		t.shows("[data-shape]", "It works until ")
		t.fill("#f-networks", "10.20.0.0/16")
		t.click("dialog .primary")
		Expect(t.AllowClipboard()).To(Succeed())
		t.shows("h1", "web-shop is ready")
		t.shows(".lead", "You can’t see this again")
		t.takeToken(ns, "web-shop")
		shown := t.text("#token")
		t.click("#copy")
		t.shows("#copied", "Copied")
		Expect(t.eval("navigator.clipboard.readText()") == `"`+shown+`"`).To(BeTrue(), "Copy token copies the token")

		key := get(ns, "web-shop")
		Expect(key.Spec.Roles).To(Equal([]string{owner}))
		Expect(key.Spec.CIDRs).To(Equal([]string{"10.20.0.0/16"}))
		Expect(string(key.Spec.Expiry.After)).To(Equal("30d"))
		Expect(key.Attributes()).To(Equal(map[string]string{"owner": "team-shop"}))
		Expect(key.Spec.DisplayName).To(Equal("Web shop, order page"))

		t.reload()
		t.shows("#part", "Its token was shown once, and can’t be shown again")
		Expect(strings.Contains(t.eval("document.documentElement.outerHTML"), shown)).To(BeFalse(), "the token is there after a reload")
		Expect(exists(secret(ns, "web-shop"))).To(BeTrue())
		t.click("[data-send]")
		t.is("document.querySelector('.danger')")
		Expect(exists(secret(ns, "web-shop"))).To(BeFalse(), "the Secret stays, although its user has the token")
		Expect(get(ns, "web-shop").IsReady()).To(BeTrue())

		t.click(".danger")
		t.shows("dialog", "Whoever uses its token is refused from this moment on")
		t.click("dialog .danger")
		t.shows("#empty", "No API keys here yet")
		Expect(exists(key)).To(BeFalse())
	})

	It("is possible with a keyboard alone", func() {
		ns := namespace()
		t := newTab(shared)
		c := start(rootConfig, ns)
		t.visit(c.link)
		t.is("document.activeElement.innerText === 'Open the page'")
		t.press(kb.Enter)
		t.loaded("#part")
		t.tabTo("[data-dialog]")
		t.press(kb.Enter)
		t.is("document.activeElement.id === 'f-name'")
		t.press("web-shop")
		t.tabTo("#f-search")
		t.press("invoice")
		t.press(kb.Enter) // must not send the form
		t.tabTo(`[value="org.permission.invoice.read"]`)
		t.press(" ")
		t.shows("[data-chosen]", "1 role chosen")
		t.tabTo("[name=expires]")
		t.press(kb.ArrowRight)
		t.shows("[data-date]", "Date")
		t.press(kb.ArrowRight)
		t.shows("[data-shape]", "until somebody deletes it")
		t.tabTo("dialog .primary")
		t.press(kb.Enter)
		t.shows("h1", "web-shop is ready")
		t.takeToken(ns, "web-shop")
		Expect(t.eval("document.activeElement.id")).To(Equal(`"copy"`), "the next thing to do has the focus")
		t.tabTo("#taken")
		t.press(kb.Enter)
		t.loaded(".danger")
		Expect(exists(secret(ns, "web-shop"))).To(BeFalse())
		t.tabTo(".danger")
		t.press(kb.Enter)
		t.is("document.activeElement.innerText === 'Cancel'") // not what can't be undone
		t.press(kb.Escape)
		t.is("document.activeElement.matches('.danger')")
		t.press(kb.Enter)
		t.is("document.activeElement.innerText === 'Cancel'")
		t.tabTo("dialog .danger")
		t.press(kb.Enter)
		t.shows("#empty", "No API keys here yet")
	})

	It("leaves a dialog alone that opens in the moment in which the last one closes", func() {
		t := newTab(shared)
		t.open(start(rootConfig, namespace()))
		t.click("[data-dialog]")
		t.shows("dialog h2", "Add API key")
		// Browsers tell of a close only with the next frame. The second frame is after that.
		t.eval(`(async (dialog) => {
			dialog.close();
			dialog.showModal();
			for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
		})(document.querySelector("dialog"))`)
		Expect(t.text("dialog h2")).To(Equal("Add API key"))
		t.press(kb.Escape)
		t.is("document.querySelector('dialog').childNodes.length === 0")
	})

	It("begins in a file that only its owner can read, and that is gone soon", func() {
		ns := namespace()
		folder := GinkgoT().TempDir()
		seen := filepath.Join(folder, "seen")
		// xdg-open is what opens the browser.
		Expect(os.WriteFile(filepath.Join(folder, "xdg-open"), []byte("#!/bin/sh\necho \"$*\" >"+seen+".new && mv "+seen+".new "+seen+"\n"), 0o700)).To(Succeed())
		process := exec.CommandContext(ctx, filepath.Join(plane.Root, "bin", "kubectl-apikey"), "ui", "-n", ns)
		process.Env = append(os.Environ(), "KUBECONFIG="+rootConfig, "PATH="+folder+":"+os.Getenv("PATH"))
		process.Stderr = log
		Expect(process.Start()).To(Succeed())
		Eventually(seen).Should(BeAnExistingFile())
		argument, err := os.ReadFile(seen)
		Expect(err).NotTo(HaveOccurred())
		file := strings.TrimSpace(string(argument))
		Expect(file).To(HavePrefix("/"), "the browser gets a file, and no URL with a token")
		t := newTab(shared)
		t.visit("file://" + file)
		t.shows("h1", "API keys")
		t.is("document.querySelector('#part')")
		Expect(process.Process.Signal(os.Interrupt)).To(Succeed())
		Expect(process.Wait()).To(Succeed(), "Ctrl-C is how the page ends")
		Expect(file).NotTo(BeAnExistingFile())
	})

	It("delivers a key for a workload in its Secret, without showing it", func() {
		ns := namespace()
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.click("[data-dialog]")
		t.fill("#f-name", "worker")
		t.click(`[value="` + read + `"]`)
		t.click(".cards label:nth-child(2)")
		t.click("dialog .primary")
		t.shows("#part", "secretName: worker")
		Expect(t.eval("document.querySelector('[data-token], [data-send]')")).To(Equal("null"))
		Eventually(func() bool { return exists(secret(ns, "worker")) }).Should(BeTrue())
		Expect(get(ns, "worker").Spec.Secret).To(BeNil())
	})

	It("rotates, in the Secret or shown once where its user had taken that, ends the old token, suspends and resumes", func() {
		ns := namespace()
		add(ns, "worker")
		Eventually(func() bool { return get(ns, "worker").IsReady() }).Should(BeTrue())
		before := get(ns, "worker").Status.Hash
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.click("#rows a")
		t.click(`[data-dialog$="/rotate"]`)
		t.shows("dialog", "The new token replaces the old one in Secret worker")
		t.click("dialog .primary")
		Eventually(func() string { return get(ns, "worker").Status.Hash }).ShouldNot(Equal(before))
		t.shows("#part", "Ends in ")
		t.click(`[data-dialog$="/retire"]`)
		t.shows("dialog", "Whoever still uses the token")
		t.click("dialog .danger")
		t.is("document.readyState === 'complete' && document.querySelector('.tokenline') && !document.querySelector('.tokenline .status.warn')")
		Expect(get(ns, "worker").RetiringToken()).To(BeNil())

		t.click(`[data-dialog$="/suspend"]`)
		t.click("dialog .primary")
		t.shows("h1 .status", "Suspended")
		Expect(get(ns, "worker").IsSuspended()).To(BeTrue())
		t.click(`[data-dialog$="/resume"]`)
		t.click("dialog .primary")
		t.shows("h1 .status", "Issued")

		add(ns, "mine")
		Eventually(func() bool { return get(ns, "mine").IsReady() }).Should(BeTrue())
		Expect(admin.Delete(ctx, secret(ns, "mine"))).To(Succeed())
		t.click(`.crumbs a`)
		t.click(`#rows a[href$="/mine/"]`)
		t.click(`[data-dialog$="/rotate"]`)
		t.shows("dialog", "the new token is shown to you here, once")
		t.click("dialog .segments label:nth-child(1)")
		t.click("dialog .primary")
		t.shows("h1", "mine has a new token")
		t.takeToken(ns, "mine")
		t.click("#taken")
		Eventually(func() bool { return exists(secret(ns, "mine")) }).Should(BeFalse())
	})
})
