package page

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// watchRows makes a tab note when each row changed, by the clock of this machine.
const watchRows = `(window.seen = [], new MutationObserver(() => {
	window.seen.push({at: Date.now(), rows: [...document.querySelectorAll("#rows tr")].map((r) => r.innerText).join("\n")});
}).observe(document.querySelector("#rows"), {childList: true, subtree: true, characterData: true}), 1)`

// since returns how long after a moment the rows first fulfilled a condition, in milliseconds.
func (t *tab) since(moment time.Time, condition string) time.Duration {
	GinkgoHelper()
	first := fmt.Sprintf("window.seen.find((s) => s.at >= %d && (%s)(s.rows))?.at", moment.UnixMilli(), condition)
	t.is(first)
	var at int64
	_, err := fmt.Sscan(t.eval(first), &at)
	Expect(err).NotTo(HaveOccurred())
	return time.UnixMilli(at).Sub(moment)
}

var _ = Describe("The page", func() {
	It("shows within a second what happens to keys elsewhere", func() {
		ns := namespace()
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.eval(watchRows)
		// The first event also shows that the stream is open.
		add(ns, "first")
		t.shows("#rows", "Issued")
		// On a busy machine a change may be late, but a page that asks from time to time is not in time three times in a row.
		inTime := 0
		for i := 0; i < 30 && inTime < 3; i++ {
			name := fmt.Sprintf("new-%d.", i)
			before := time.Now()
			add(ns, name+"x")
			if inTime++; t.since(before, fmt.Sprintf("(rows) => rows.includes(%q)", name)) >= soon {
				inTime = 0
			}
		}
		Expect(inTime).To(Equal(3), "changes are late")
	})

	It("shows that a key was issued, used, suspended, deleted and expired elsewhere", func() {
		ns := namespace()
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		row := func(name string) string { return fmt.Sprintf("#rows tr:has([href$='/%s/'])", name) }
		shop := add(ns, "shop")
		t.shows(row("shop")+" .c-status", "Issued")
		t.shows(row("shop")+" .c-used", "Not seen")
		use(startVerifier(), ns, "shop")
		t.shows(row("shop")+" .c-used", "second")

		patch(ns, "shop", `{"spec": {"suspend": true}}`)
		t.shows(row("shop")+" .c-status", "Suspended")
		add(ns, "short", func(k *v1alpha1.ApiKey) { k.Spec.Expiry = v1alpha1.ApiKeyExpiry{After: "2s"} })
		t.shows(row("short")+" .c-status", "Expired")
		Expect(admin.Delete(ctx, shop)).To(Succeed())
		t.is(`!document.querySelector("` + row("shop") + `")`)
		t.shows("#count", "1 key")
	})

	It("updates a key's own view when the key changes, and says when it is gone", func() {
		ns := namespace()
		key := add(ns, "shop")
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.click("#rows a")
		t.shows("h1 .status", "Issued")
		patch(ns, "shop", `{"spec": {"suspend": true}}`)
		t.shows("h1 .status", "Suspended")
		Expect(admin.Delete(ctx, key)).To(Succeed())
		t.shows("h1", "The key shop can't be shown")
	})

	It("says that the API server is away, and goes on when it is back", Serial, func() {
		ns := namespace()
		add(ns, "before")
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.shows("#rows", "Issued")
		// An operator ends when it can't renew its lease, and nothing starts it again here.
		Expect(operator.Stop()).To(Succeed())
		Expect(plane.KillAPIServer(ctx)).To(Succeed())
		t.shows("#trouble", "Changes are not shown at the moment: the API server can't be reached")
		t.click("[data-dialog]")
		t.shows("#trouble", "the API server can't be reached")
		Expect(plane.StartAPIServer()).To(Succeed())
		startOperator()
		t.is("document.querySelector('#trouble').hidden")
		add(ns, "after")
		t.shows("#rows tr:has([href$='/after/'])", "Issued")
	})

	It("filters by every column, sorts, and keeps both while keys change", func() {
		ns := namespace()
		add(ns, "b-shop", func(k *v1alpha1.ApiKey) { k.Spec.DisplayName = "Order page"; k.Spec.CIDRs = []string{"10.1.0.0/16"} })
		add(ns, "a-cron", func(k *v1alpha1.ApiKey) { k.Spec.Expiry = v1alpha1.ApiKeyExpiry{After: "5d"} })
		add(ns, "c-desk", func(k *v1alpha1.ApiKey) {
			k.Spec.Expiry = v1alpha1.ApiKeyExpiry{Never: new(true)}
			k.Spec.Roles = []string{read, write, "org.permission.invoice.read"}
		})
		for _, name := range []string{"a-cron", "b-shop", "c-desk"} {
			Eventually(func() bool { return get(ns, name).IsReady() }).Should(BeTrue())
		}
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		shown := `[...document.querySelectorAll("#rows tr:not([hidden]) a")].map((a) => a.innerText)`
		Expect(t.eval(shown)).To(Equal(`["a-cron","b-shop","c-desk"]`))
		for _, c := range []struct{ text, want string }{
			{"order page", `["b-shop"]`}, {"10.1", `["b-shop"]`}, {"invoice", `["c-desk"]`}, {"never", `["c-desk"]`}, {"issued shop", `["b-shop"]`}, {"nothing", `[]`},
		} {
			t.set("#filter", "")
			t.fill("#filter", c.text)
			Expect(t.eval(shown)).To(Equal(c.want), c.text)
		}
		t.shows("#none", "No key matches")
		t.click("#unfilter")
		t.click("[data-sort=expires]")
		Expect(t.eval(shown)).To(Equal(`["a-cron","b-shop","c-desk"]`))
		t.click("[data-sort=expires]")
		Expect(t.eval(shown)).To(Equal(`["c-desk","b-shop","a-cron"]`))
		Expect(t.eval(`document.querySelector(".c-expires").ariaSort`)).To(Equal(`"descending"`))
		t.fill("#filter", "-")
		add(ns, "d-new", func(k *v1alpha1.ApiKey) { k.Spec.Expiry = v1alpha1.ApiKeyExpiry{After: "30d"} })
		t.is(`document.querySelector("#rows").innerText.includes("d-new")`)
		t.is(`JSON.stringify(` + shown + `) === '["c-desk","b-shop","d-new","a-cron"]'`)
	})

	It("shows the first fifty of many keys, and more when one scrolls to the end", func() {
		ns := namespace()
		add(ns, "one")
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.shows("#rows", "Issued")
		const visible = `document.querySelectorAll("#rows tr:not([hidden])").length`
		// Copies of a row, as 250 keys would have: to create so many takes long.
		t.eval(`((row) => { for (let i = 0; i < 249; i++) {
			const copy = row.cloneNode(true);
			copy.id += i;
			copy.dataset.name = copy.querySelector("a").innerText = "many-" + String(i).padStart(3, "0");
			row.parentNode.append(copy);
		} })(document.querySelector("#rows tr"))`)
		t.fill("#filter", "many")
		t.shows("#count", "249 of 250 keys")
		t.is(visible + " === 50")
		t.press("-00")
		t.shows("#count", "10 of 250 keys")
		t.is(visible + " === 10 && document.querySelector('#more').hidden")
		t.set("#filter", "")
		t.is(visible + " === 50")
		for _, want := range []string{"100", "150", "200", "250"} {
			t.eval(`scrollTo(0, document.body.scrollHeight)`)
			t.is(visible + " === " + want)
		}
		t.is("document.querySelector('#more').hidden")
	})
})

var _ = Describe("A refusal", func() {
	It("stands at its field, in the words of kubectl apply", func() {
		ns := namespace()
		add(ns, "taken")
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.click("[data-dialog]")
		t.click("dialog .primary")
		t.shows(".field:has(#f-name) .refusal", "A key needs a name")
		t.shows("fieldset:has(.picker) .refusal", "Choose at least one role")
		Expect(t.eval("document.activeElement.id")).To(Equal(`"f-name"`), "the first refused field has the focus")

		t.fill("#f-name", "Web Shop")
		t.click(`[value="` + read + `"]`)
		t.fill("#f-networks", "10.20.30.40/16")
		t.click("dialog .primary")
		t.is("document.querySelector('#e-networks .refusal')")
		said, err := plane.RunKubectl(ctx, fmt.Sprintf(`{"apiVersion": "apikey-operator.io/v1alpha1", "kind": "ApiKey", "metadata": {"name": "web-shop", "namespace": %q},
			"spec": {"roles": [%q], "expiry": {"after": "90d"}, "cidrs": ["10.20.30.40/16"]}}`, ns, read), "apply", "-f", "-")
		Expect(err).To(HaveOccurred())
		Expect(said).To(ContainSubstring(t.text("#e-networks .refusal")))
		t.shows("#e-name .refusal", "RFC 1123")
		Expect(t.eval("document.querySelector('#f-networks').value")).To(Equal(`"10.20.30.40/16"`), "what was typed in stays")

		t.set("#f-name", "taken")
		t.set("#f-networks", "")
		t.click("dialog .primary")
		t.shows("#e-name .refusal", "This namespace has a key of this name")
	})

	It("comes from a policy before the key exists", func() {
		ns := namespace()
		policy := &v1alpha1.ApiKeyPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: ns},
			Spec: v1alpha1.ApiKeyPolicySpec{
				NamespaceSelector: &v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{"kubernetes.io/metadata.name": v1alpha1.LabelValue(ns)}},
				Roles:             []string{"*"}, MaxLifetime: "30d", AllowedCIDRs: []string{"10.0.0.0/8"},
			},
		}
		Expect(admin.Create(ctx, policy)).To(Succeed())
		// With a policy in the cluster, other namespaces need one, too.
		other := &v1alpha1.ApiKeyPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: ns + "-others"},
			Spec: v1alpha1.ApiKeyPolicySpec{Roles: []string{"*"}, NamespaceSelector: &v1alpha1.NamespaceSelector{
				MatchExpressions: []v1alpha1.NamespaceSelectorRequirement{{
					Key: "kubernetes.io/metadata.name", Operator: "NotIn", Values: []v1alpha1.LabelValue{v1alpha1.LabelValue(ns)},
				}},
			}},
		}
		Expect(admin.Create(ctx, other)).To(Succeed())
		DeferCleanup(func() {
			Expect(admin.Delete(ctx, policy)).To(Succeed())
			Expect(admin.Delete(ctx, other)).To(Succeed())
		})
		t := newTab(shared)
		t.open(start(rootConfig, ns))
		t.click("[data-dialog]")
		t.fill("#f-name", "shop")
		t.click(`[value="` + read + `"]`)
		t.fill("#f-networks", "10.20.0.0/16")
		t.click("dialog .primary")
		t.shows("fieldset:has(.segments) .refusal", "its maxLifetime is 30d")
		t.click(".segments label:nth-child(2)")
		t.set("#f-networks", "192.168.0.0/16")
		t.click("dialog .primary")
		t.shows("#e-networks .refusal", "each must lie within one of 10.0.0.0/8")
		Expect(exists(&v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop"}})).To(BeFalse())
	})
})

var _ = Describe("Someone who", func() {
	It("may only view keys sees them, and why they can't add one", func() {
		ns := namespace()
		add(ns, "shop")
		t := newTab(shared)
		t.open(start(having(ns, onKeys("get", "list", "watch")), ns))
		t.shows("#rows", "shop")
		t.shows("#may-not", `You may not create apikeys.apikey-operator.io in namespace "`+ns+`"`)
		Expect(t.eval("document.querySelector('.head button').disabled")).To(Equal("true"))
		t.click("#rows a")
		t.shows("#part", "You may not list apiroles")
		t.shows("#part", "You may not list events")
		t.click(".danger")
		t.click("dialog .danger")
		t.shows("dialog [data-failed]", "cannot delete resource")
		Expect(get(ns, "shop").DeletionTimestamp).To(BeNil())
	})

	It("may create keys and not read Secrets gets no key for themselves, but one for a workload", func() {
		ns := namespace()
		t := newTab(shared)
		t.open(start(having(ns, onKeys("get", "list", "watch", "create")), ns))
		t.click("[data-dialog]")
		t.fill("#f-name", "shop")
		t.fill("[name=roles]", read)
		t.click("dialog .primary")
		t.shows("fieldset:has(.cards) .refusal", `You may not get secrets "shop" in namespace "`+ns+`"`)
		Expect(exists(&v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop"}})).To(BeFalse())
		t.click(".cards label:nth-child(2)")
		t.click("dialog .primary")
		t.shows("h1", "shop is added")
	})

	It("may do nothing is told what they may not do", func() {
		ns := namespace()
		t := newTab(shared)
		t.open(start(having(ns), ns))
		t.shows("#part", `cannot list resource "apikeys"`)
		t.shows("#part", ns)
	})

	It("may add keys and read their Secrets, but no more, gets a token", func() {
		ns := namespace()
		t := newTab(shared)
		t.open(start(having(ns, onKeys("get", "list", "watch", "create"),
			rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}), ns))
		t.click("[data-dialog]")
		t.fill("#f-name", "shop")
		t.fill("[name=roles]", read)
		t.click("dialog .primary")
		t.takeToken(ns, "shop")
		t.click("#taken")
		t.shows("[data-failed]", "The key works, but its Secret shop could not be deleted")
	})
})
