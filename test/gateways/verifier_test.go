package gateways

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // so that clients ask for it
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	minted "github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// auth asks a verifier over forward-auth, on a route that requires roleRead.
func auth(c *http.Client, v *controlplane.Verifier, token string) int {
	GinkgoHelper()
	return statusOf(c, v.HTTP+"/auth?role="+roleRead, "Authorization", "Bearer "+token)
}

var _ = Describe("apikey-verifier", Label("releases"), func() {
	It("refuses everything as not ready until the keys are loaded, and lets in once they are", func() {
		ns := namespace()
		_, token := issue(ns, "early")
		link := newForwarder()
		link.cut()
		v := launchVerifier(addresses(), "--kubeconfig="+link.kubeconfig())
		Expect(v.WaitHTTP(ctx, v.Probes+"/healthz")).To(Succeed())
		c := httpClient(outside)
		Expect(auth(c, v, token)).To(Equal(http.StatusServiceUnavailable))
		Expect(auth(c, v, "garbage")).To(Equal(http.StatusServiceUnavailable))
		Expect(statusOf(c, v.Probes+"/readyz")).To(Equal(http.StatusServiceUnavailable))
		connection := dial(v.GRPC)
		health, err := healthv1.NewHealthClient(connection).Check(ctx, &healthv1.HealthCheckRequest{})
		Expect(err).NotTo(HaveOccurred())
		Expect(health.GetStatus()).To(Equal(healthv1.HealthCheckResponse_NOT_SERVING))
		answer, err := authv3.NewAuthorizationClient(connection).Check(ctx, envoyRequest(outside, roleRead, map[string]string{"x-api-key": token}))
		Expect(err).NotTo(HaveOccurred())
		Expect(answer.GetDeniedResponse().GetStatus().GetCode()).To(BeEquivalentTo(http.StatusServiceUnavailable))
		review := postJSON(c, v.HTTP+"/tokenreview", `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"`+token+`"}}`)
		Expect(review).To(ContainSubstring(`"authenticated":false`))
		Expect(review).To(ContainSubstring(`"error"`))

		link.open()
		Eventually(func() int { return auth(c, v, token) }).Should(Equal(http.StatusOK))
		Expect(statusOf(c, v.Probes+"/readyz")).To(Equal(http.StatusOK))
		Eventually(func() healthv1.HealthCheckResponse_ServingStatus {
			health, err := healthv1.NewHealthClient(connection).Check(ctx, &healthv1.HealthCheckRequest{})
			Expect(err).NotTo(HaveOccurred())
			return health.GetStatus()
		}).Should(Equal(healthv1.HealthCheckResponse_SERVING))
	})

	It("keeps answering while the API server is away, and catches up when it is back", func() {
		ns := namespace()
		key, token := issue(ns, "survivor")
		link := newForwarder()
		v := startVerifier(addresses(), "--kubeconfig="+link.kubeconfig())
		c := httpClient(outside)
		Eventually(func() int { return auth(c, v, token) }).Should(Equal(http.StatusOK))
		link.cut()
		_, later := issue(ns, "later")
		revoke(key)
		Consistently(func() int { return auth(c, v, token) }, "500ms").Should(Equal(http.StatusOK), "the loaded keys are those of before")
		Expect(auth(c, v, later)).To(Equal(http.StatusUnauthorized))
		link.open()
		Eventually(func() int { return auth(c, v, token) }).Should(Equal(http.StatusUnauthorized))
		Eventually(func() int { return auth(c, v, later) }).Should(Equal(http.StatusOK))
	})

	It("refuses everything once its view is older than --max-staleness", func() {
		ns := namespace()
		_, token := issue(ns, "stale")
		link := newForwarder()
		v := startVerifier(addresses(), "--kubeconfig="+link.kubeconfig(), "--max-staleness=2s")
		c := httpClient(outside)
		link.cut()
		Eventually(func() int { return auth(c, v, token) }).Should(Equal(http.StatusServiceUnavailable))
		Expect(statusOf(c, v.Probes+"/readyz")).To(Equal(http.StatusServiceUnavailable))
		link.open()
		key, fresh := issue(ns, "fresh")
		role := build.ApiRole("stale")
		Expect(admin.Create(ctx, role)).To(Succeed())
		DeferCleanup(func() { Expect(admin.Delete(ctx, role)).To(Succeed()) })
		Eventually(func() int {
			// The data is fresh while both watches are, of keys and of roles. Cause an event for each instead of waiting for bookmarks.
			touch(key)
			touch(role)
			return auth(c, v, fresh)
		}).Should(Equal(http.StatusOK))
		Expect(output.Contains("--max-staleness is too short")).To(BeTrue())
	})

	It("accepts only keys in --namespaces that --selector selects", func() {
		mine, yours := namespace(), namespace()
		public := build.Label("tier", "public")
		picked, pickedToken := issue(mine, "picked", public)
		_, unlabelled := issue(mine, "unlabelled")
		_, elsewhere := issue(yours, "elsewhere", public)
		v := startVerifier(addresses(), "--namespaces="+mine+","+namespace()+","+mine, "--selector=tier=public")
		c := httpClient(outside)
		Expect(auth(c, v, pickedToken)).To(Equal(http.StatusOK))
		Expect(auth(c, v, unlabelled)).To(Equal(http.StatusUnauthorized))
		Expect(auth(c, v, elsewhere)).To(Equal(http.StatusUnauthorized))
		// A key whose label is removed is no longer selected.
		Expect(admin.Patch(ctx, picked, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"tier":null}}}`)))).To(Succeed())
		Eventually(func() int { return auth(c, v, pickedToken) }).Should(Equal(http.StatusUnauthorized))
	})

	It("needs the default roles of every request, beside those that it asks for", func() {
		ns := namespace()
		_, reader := issue(ns, "reader", build.Roles(roleRead))
		_, other := issue(ns, "other", build.Roles(roleOther))
		_, both := issue(ns, "both", build.Roles(roleRead, roleOther))
		v := startVerifier(addresses(), "--default-roles="+roleRead, "--grpc-default-roles="+roleOther)
		c := httpClient(outside)
		envoy := authv3.NewAuthorizationClient(dial(v.GRPC))
		byEnvoy := func(roles, token string) bool {
			GinkgoHelper()
			response, err := envoy.Check(ctx, envoyRequest(outside, roles, map[string]string{"x-api-key": token}))
			Expect(err).NotTo(HaveOccurred())
			return response.GetOkResponse() != nil
		}
		unscoped := func(token string) int { return statusOf(c, v.HTTP+"/auth", "X-Api-Key", token) }
		Eventually(func() int { return unscoped(both) }).Should(Equal(http.StatusOK))
		Eventually(func() int { return unscoped(reader) }).Should(Equal(http.StatusOK))
		Eventually(func() bool { return byEnvoy("", other) }).Should(BeTrue())
		for _, query := range []string{"", "?role=" + roleOther, "?namespace=" + ns} {
			Expect(statusOf(c, v.HTTP+"/auth"+query, "X-Api-Key", other)).To(Equal(http.StatusForbidden), "%s", query)
			Expect(statusOf(c, v.HTTP+"/auth"+query, "X-Api-Key", both)).To(Equal(http.StatusOK), "%s", query)
		}
		for _, roles := range []string{"", roleRead} {
			Expect(byEnvoy(roles, reader)).To(BeFalse(), roles)
			Expect(byEnvoy(roles, both)).To(BeTrue(), roles)
		}
	})

	It("is closed where a route names neither a role nor a namespace, and opens such routes by --require-scope=false", func() {
		ns := namespace()
		_, token := issue(ns, "unscoped")
		closed, open := startVerifier(addresses()), startVerifier(addresses(), "--require-scope=false")
		c := httpClient(outside)
		byEnvoy := func(v *controlplane.Verifier, roles string) bool {
			GinkgoHelper()
			request := envoyRequest(outside, roles, map[string]string{"x-api-key": token})
			response, err := authv3.NewAuthorizationClient(dial(v.GRPC)).Check(ctx, request)
			Expect(err).NotTo(HaveOccurred())
			return response.GetOkResponse() != nil
		}
		for _, v := range []*controlplane.Verifier{closed, open} {
			Eventually(func() int { return auth(c, v, token) }).Should(Equal(http.StatusOK))
			Expect(statusOf(c, v.HTTP+"/auth?namespace="+ns, "X-Api-Key", token)).To(Equal(http.StatusOK))
			Expect(byEnvoy(v, roleRead)).To(BeTrue())
		}
		Expect(statusOf(c, open.HTTP+"/auth", "X-Api-Key", token)).To(Equal(http.StatusOK))
		Expect(byEnvoy(open, "")).To(BeTrue())
		Expect(output.Contains("Routes without roles and namespaces accept every valid key")).To(BeTrue())

		Expect(statusOf(c, closed.HTTP+"/auth", "X-Api-Key", token)).To(Equal(http.StatusForbidden))
		Expect(byEnvoy(closed, "")).To(BeFalse())
		for _, protocol := range []string{"forward-auth", "ext_authz"} {
			Expect(metric(closed, `apikey_verifier_decisions_total{protocol="`+protocol+`",result="BadRoute"}`)).To(Equal("1"))
		}
		Expect(output.Contains("--require-scope=false")).To(BeTrue(), "the log says how to open it")
	})

	It("does not start where --trusted-proxies would trust more than was written", func() {
		for network, problem := range map[string]string{
			"::ffff:0:0/96":       `"::ffff:0:0/96" contains every address`,
			"0.0.0.0/0":           `"0.0.0.0/0" contains every address`,
			"::/0":                `"::/0" contains every address`,
			"::ffff:10.0.0.0/104": `"::ffff:10.0.0.0/104" is an IPv4-mapped IPv6 network: write 10.0.0.0/8`,
		} {
			path := filepath.Join(plane.Root, "bin", "apikey-verifier")
			out, err := exec.CommandContext(ctx, path, "--trusted-proxies="+network, "--kubeconfig=/does/not/exist").CombinedOutput()
			Expect(err).To(HaveOccurred())
			Expect(string(out)).To(ContainSubstring(problem))
		}
	})

	It("does not start where --forward-attributes can't be understood", func() {
		for list, problem := range map[string]string{
			"Owner":       `--forward-attributes=[Owner]: "Owner" is not a name of an attribute: must be a lower-case letter`,
			"owner,owner": `"owner" is listed twice: remove one`,
			"owner,":      `"" is not a name of an attribute`,
		} {
			path := filepath.Join(plane.Root, "bin", "apikey-verifier")
			out, err := exec.CommandContext(ctx, path, "--forward-attributes="+list, "--kubeconfig=/does/not/exist").CombinedOutput()
			Expect(err).To(HaveOccurred())
			Expect(string(out)).To(ContainSubstring(problem))
		}
	})

	It("refuses the keys of a namespace that it may no longer read, and no others", func() {
		const group = "apikey-operator.io"
		mine, theirs, account := namespace(), namespace(), namespace()
		see := []string{"get", "list", "watch"}
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: account}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{group}, Resources: []string{"apiroles"}, Verbs: see},
			{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
			{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
		}}
		reader := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: account, Name: "default"}}
		Expect(admin.Create(ctx, role)).To(Succeed())
		Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: account}, Subjects: reader,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: account},
		})).To(Succeed())
		roleIn := func(namespace string) *rbacv1.Role {
			return &rbacv1.Role{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "verifier"},
				Rules:      []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{"apikeys"}, Verbs: see}},
			}
		}
		for _, namespace := range []string{mine, theirs} {
			Expect(admin.Create(ctx, roleIn(namespace))).To(Succeed())
			Expect(admin.Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "verifier"}, Subjects: reader,
				RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "verifier"},
			})).To(Succeed())
		}
		key, token := issue(mine, "mine")
		lostKey, lost := issue(theirs, "theirs")
		unknown := minted.Mint(minted.DefaultPrefix).Reveal()
		output.Remember(unknown)
		touched := build.ApiRole("org.touched")
		Expect(admin.Create(ctx, touched)).To(Succeed())
		DeferCleanup(func() error { return client.IgnoreNotFound(admin.Delete(ctx, touched)) })
		// An idle API server sends a bookmark once a minute, which is too slow for this spec.
		touching, stop := context.WithCancel(ctx)
		toucher := sync.WaitGroup{}
		defer toucher.Wait()
		defer stop()
		toucher.Go(func() {
			for n := 0; touching.Err() == nil; n++ {
				for _, object := range []client.Object{key.DeepCopy(), lostKey.DeepCopy(), touched.DeepCopy()} {
					change := client.RawPatch("application/merge-patch+json", []byte(fmt.Sprintf(`{"metadata":{"annotations":{"touched":"%d"}}}`, n)))
					_ = admin.Patch(touching, object, change) // if it fails, the next one is enough
				}
				select {
				case <-time.After(300 * time.Millisecond):
				case <-touching.Done():
				}
			}
		})

		const staleness = 6 * time.Second
		link := newForwarder()
		start := func(namespaces ...string) *controlplane.Verifier {
			GinkgoHelper()
			return startVerifier(addresses(), "--kubeconfig="+link.kubeconfigAs(account, "default"), "--max-staleness="+staleness.String(),
				"--namespaces="+strings.Join(namespaces, ","))
		}
		v := start(mine, theirs)
		c := httpClient(outside)
		asked := func(v *controlplane.Verifier, token string) func() int {
			return func() int { return auth(c, v, token) }
		}
		Eventually(asked(v, token)).Should(Equal(http.StatusOK))
		Eventually(asked(v, lost)).Should(Equal(http.StatusOK))

		By("deleting the Role")
		Expect(admin.Delete(ctx, roleIn(theirs))).To(Succeed())
		// The API server doesn't check the permission of an open watch again for minutes.
		link.cut()
		link.open()
		Eventually(asked(v, lost)).Should(Equal(http.StatusServiceUnavailable))
		Eventually(asked(v, token)).Should(Equal(http.StatusOK))
		Eventually(asked(v, unknown)).Should(Equal(http.StatusUnauthorized))
		Expect(statusOf(c, v.Probes+"/readyz")).To(Equal(http.StatusOK))
		age := func(source string) float64 {
			GinkgoHelper()
			value, err := strconv.ParseFloat(metric(v, `apikey_verifier_watch_age_seconds{source="`+source+`"}`), 64)
			Expect(err).NotTo(HaveOccurred())
			return value
		}
		Expect(age("apikeys/" + theirs)).To(BeNumerically(">", staleness.Seconds()))
		Eventually(func() float64 { return max(age("apikeys/"+mine), age("apiroles")) }).Should(BeNumerically("<", staleness.Seconds()))

		By("starting without the Role, and with a namespace that doesn't exist")
		late := start(mine, theirs, "no-such-namespace")
		Eventually(asked(late, token)).Should(Equal(http.StatusOK))
		Eventually(asked(late, lost)).Should(Equal(http.StatusUnauthorized), "none of its keys are loaded")

		By("creating the Role again")
		Expect(admin.Create(ctx, roleIn(theirs))).To(Succeed())
		for _, v := range []*controlplane.Verifier{v, late} {
			Eventually(asked(v, lost)).Should(Equal(http.StatusOK))
			Eventually(asked(v, token)).Should(Equal(http.StatusOK))
		}
	})

	It("accepts neither of two keys with one digest, and counts them", func() {
		ns := namespace()
		key, token := issue(ns, "original")
		c := httpClient(outside)
		Eventually(func() int { return auth(c, verifier, token) }).Should(Equal(http.StatusOK))
		// A Secret with the copy's name keeps the operator from issuing the copy.
		Expect(admin.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "taken"}})).To(Succeed())
		// Let a second pass: of two keys created in the same second, the verifier can't tell which is older.
		Eventually(func() int64 { return time.Now().Unix() }).Should(BeNumerically(">", key.CreationTimestamp.Unix()))
		thief := build.ApiKey(ns, "thief", build.Roles(roleRead, roleOther), build.Secret(v1alpha1.ApiKeySecret{Name: "taken"}))
		Expect(admin.Create(ctx, thief)).To(Succeed())
		// This client stands for somebody who got around the admission policies and writes a status as the operator does.
		config, err := plane.As(ctx, controlplane.Namespace, controlplane.ServiceAccount)
		Expect(err).NotTo(HaveOccurred())
		operator, err := client.New(config, client.Options{Scheme: harness.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		steal := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"hash":"`+key.Status.Hash+`"}}`))
		Expect(operator.Status().Patch(ctx, thief, steal)).To(Succeed())
		Eventually(func() int { return auth(c, verifier, token) }).Should(Equal(http.StatusUnauthorized))
		Expect(metric(verifier, "apikey_verifier_duplicate_digests")).To(Equal("1"))
		revoke(thief)
		Eventually(func() int { return auth(c, verifier, token) }).Should(Equal(http.StatusOK), "the older key is accepted again")
		Eventually(func() string { return metric(verifier, "apikey_verifier_duplicate_digests") }).Should(Equal("0"))
	})

	It("allows a key that has a role through another role, as soon as the catalogue includes it", func() {
		ns := namespace()
		role := build.ApiRole(roleOther)
		Expect(admin.Create(ctx, role)).To(Succeed())
		DeferCleanup(func() error { return client.IgnoreNotFound(admin.Delete(ctx, role)) })
		_, token := issue(ns, "includes", build.Roles(roleOther))
		c := httpClient(outside)
		asked := func() int { return statusOf(c, verifier.HTTP+"/auth?role="+roleRead, "X-Api-Key", token) }
		Eventually(asked).Should(Equal(http.StatusForbidden))
		include := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"includes":["`+roleRead+`"]}}`))
		Expect(admin.Patch(ctx, role, include)).To(Succeed())
		Eventually(asked).Should(Equal(http.StatusOK))
		Expect(admin.Delete(ctx, role)).To(Succeed())
		Eventually(asked).Should(Equal(http.StatusForbidden))
	})

	It("introspects for callers who may, and for nobody else", func() {
		ns := namespace()
		_, token := issue(ns, "introspected", build.CIDRs(insideCIDR))
		c := httpClient(outside)
		ask := func(caller, form string) (int, map[string]any) {
			GinkgoHelper()
			status, document, err := introspect(c, verifier, caller, form)
			Expect(err).NotTo(HaveOccurred())
			return status, document
		}
		form := url.Values{"token": {token}, "client_address": {inside}}.Encode()
		status, _ := ask("", form)
		Expect(status).To(Equal(http.StatusUnauthorized))
		status, _ = ask("garbage", form)
		Expect(status).To(Equal(http.StatusUnauthorized))
		// A key is a user too, because the verifier is the API server's token webhook, but it may not introspect.
		status, _ = ask(token, form)
		Expect(status).To(BeElementOf(http.StatusUnauthorized, http.StatusForbidden))

		stranger, err := plane.As(ctx, ns, "default")
		Expect(err).NotTo(HaveOccurred())
		status, _ = ask(stranger.BearerToken, form)
		Expect(status).To(Equal(http.StatusForbidden))

		caller := introspector()
		Eventually(func() int { status, _ := ask(caller, form); return status }).Should(Equal(http.StatusOK))
		_, document := ask(caller, form)
		Expect(document).To(And(HaveKeyWithValue("active", true), HaveKeyWithValue("sub", "apikey:"+ns+":introspected"),
			HaveKeyWithValue("scope", roleRead), HaveKey("exp")))
		_, document = ask(caller, "token="+token)
		Expect(document).To(Equal(map[string]any{"active": false}), "without the client's address")
		_, document = ask(caller, "token=garbage")
		Expect(document).To(Equal(map[string]any{"active": false}))
	})

	It("refuses no honest caller of introspection because of a flood of strangers", func() {
		_, token := issue(namespace(), "asked-about")
		form := url.Values{"token": {token}}.Encode()
		v := startVerifier(addresses())
		ask := func(c *http.Client, caller string) int {
			GinkgoHelper()
			status, document, err := introspect(c, v, caller, form)
			Expect(err).NotTo(HaveOccurred())
			Expect(status).NotTo(Equal(http.StatusUnauthorized), "the API server has not refused the caller")
			if status == http.StatusOK {
				Expect(document).To(HaveKeyWithValue("active", true))
			}
			return status
		}
		known, renewed, newcomer := introspector(), introspector(), introspector()
		home := httpClient(inside)
		Eventually(func() int { return ask(home, known) }).Should(Equal(http.StatusOK))

		// These are more callers at once than the API server can be asked about before they give up.
		const strangers = 800
		crowd := httpClient(outside)
		crowded, ok := crowd.Transport.(*http.Transport)
		Expect(ok).To(BeTrue())
		crowded.MaxIdleConnsPerHost = strangers
		flood, stop := context.WithCancel(ctx)
		statuses, flooding := [600]atomic.Int64{}, sync.WaitGroup{}
		defer flooding.Wait()
		defer stop()
		for i := range strangers {
			flooding.Go(func() {
				for n := 0; flood.Err() == nil; n++ {
					if status, _, err := introspect(crowd, v, fmt.Sprintf("garbage-%d-%d", i, n), form); err == nil {
						statuses[status].Add(1)
					}
				}
			})
		}
		Eventually(func() int64 { return statuses[http.StatusServiceUnavailable].Load() }).Should(BeNumerically(">", 2*strangers))
		for range 20 {
			Expect(ask(home, known)).To(Equal(http.StatusOK))
		}
		Expect(ask(home, renewed)).To(Equal(http.StatusOK), "another token from the address of a known caller")
		Eventually(func() int { return ask(httpClient("127.0.0.4"), newcomer) }).Should(Equal(http.StatusOK), "from an address that nobody else uses")
		Expect(strconv.ParseFloat(metric(v, `apikey_verifier_callers_put_off_total{endpoint="introspection"}`), 64)).To(BeNumerically(">", 0))
		stop()
		flooding.Wait()
		answers := map[int]int64{}
		for status := range statuses {
			if n := statuses[status].Load(); n > 0 {
				answers[status] = n
			}
		}
		Expect(answers).To(And(HaveLen(2), HaveKey(http.StatusUnauthorized), HaveKey(http.StatusServiceUnavailable)))
		AddReportEntry("answers to strangers", answers)
	})

	It("serves TLS, and reloads a new certificate", func() {
		ns := namespace()
		_, token := issue(ns, "secure")
		dir := GinkgoT().TempDir()
		first := writeCertificate(dir)
		more, err := controlplane.FreeVerifierAddresses()
		Expect(err).NotTo(HaveOccurred())
		v := startVerifier(addresses(), "--tls-cert-dir="+dir, "--https-bind-address="+more.HTTP, "--grpc-tls-bind-address="+more.GRPC)
		served := func(address string) *big.Int {
			GinkgoHelper()
			connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
			Expect(err).NotTo(HaveOccurred())
			defer func() { _ = connection.Close() }()
			return connection.ConnectionState().PeerCertificates[0].SerialNumber
		}
		Expect(served(more.HTTP)).To(Equal(first))
		Expect(served(more.GRPC)).To(Equal(first))
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		Expect(statusOf(c, "https://"+more.HTTP+"/auth?role="+roleRead, "X-Api-Key", token)).To(Equal(http.StatusOK))
		second := writeCertificate(dir)
		Eventually(func() *big.Int { return served(more.HTTP) }).Should(Equal(second))
		Eventually(func() *big.Int { return served(more.GRPC) }).Should(Equal(second))
		Expect(statusOf(c, "https://"+more.HTTP+"/auth?role="+roleRead, "X-Api-Key", token)).To(Equal(http.StatusOK))
		Expect(auth(c, v, token)).To(Equal(http.StatusOK))
	})

	It("logs and counts its decisions, with the trace and without the token", func() {
		ns := namespace()
		_, token := issue(ns, "logged")
		c := httpClient(outside)
		Eventually(func() int { return auth(c, verifier, token) }).Should(Equal(http.StatusOK))
		before := metric(verifier, `apikey_verifier_decisions_total{protocol="forward-auth",result="RoleMissing"}`)
		Expect(statusOf(c, verifier.HTTP+"/auth?role="+roleOther, "X-Api-Key", token,
			"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")).To(Equal(http.StatusForbidden))
		Expect(metric(verifier, `apikey_verifier_decisions_total{protocol="forward-auth",result="RoleMissing"}`)).NotTo(Equal(before))
		Eventually(func() bool {
			return output.Contains(`"result":"RoleMissing","namespace":"` + ns + `","name":"logged"`)
		}).Should(BeTrue())
		Expect(output.Contains(`"missingRole":"` + roleOther + `","traceID":"0af7651916cd43dd8448eb211c80319c","spanID":"b7ad6b7169203331"`)).To(BeTrue())
		for _, name := range []string{
			"apikey_verifier_index_keys", "apikey_verifier_index_load_seconds", `apikey_verifier_watch_age_seconds{source="apikeys"}`,
			`apikey_verifier_watch_age_seconds{source="apiroles"}`, "apikey_verifier_duplicate_digests",
			`apikey_verifier_decision_duration_seconds_count{protocol="forward-auth"}`,
		} {
			Expect(metric(verifier, name)).NotTo(BeEmpty(), name)
		}
	})

	It("loses no request in a rolling restart under load", func() {
		ns := namespace()
		_, token := issue(ns, "load")
		at := []controlplane.VerifierAddresses{addresses(), addresses()}
		running := make([]*atomic.Pointer[controlplane.Verifier], len(at))
		for i := range at {
			running[i] = &atomic.Pointer[controlplane.Verifier]{}
			running[i].Store(startVerifier(at[i], "--drain-delay="+drainDelay.String()))
		}
		load, stop := context.WithCancel(ctx)
		defer stop()
		asked, failed := &atomic.Int64{}, make(chan string, 1000)

		// Like kube-proxy, use one HTTP connection per ready verifier.
		for range 4 {
			go httpLoad(load, running, token, asked, failed)
		}
		go grpcLoad(load, at, token, asked, failed)
		for i := range at {
			Eventually(func() int64 { return asked.Load() }).Should(BeNumerically(">", 500*int64(i+1)))
			old := running[i].Load()
			Expect(old.Stop()).To(Succeed(), "it exits with 0 after one SIGTERM")
			running[i].Store(startVerifier(at[i], "--drain-delay="+drainDelay.String()))
		}
		after := asked.Load()
		Eventually(func() int64 { return asked.Load() }).Should(BeNumerically(">", after+500))
		stop()
		Expect(failed).NotTo(Receive())
		AddReportEntry("requests during two restarts", asked.Load())
	})
})

// introspector returns the token of a new service account that may introspect.
func introspector() string {
	GinkgoHelper()
	ns := namespace()
	Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "apikey-introspector"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "default"}},
	})).To(Succeed())
	caller, err := plane.As(ctx, ns, "default")
	Expect(err).NotTo(HaveOccurred())
	return caller.BearerToken
}

func introspect(c *http.Client, v *controlplane.Verifier, caller, form string) (int, map[string]any, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, v.HTTP+"/introspect", strings.NewReader(form))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if caller != "" {
		request.Header.Set("Authorization", "Bearer "+caller)
	}
	response, err := c.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var document map[string]any
	if json.NewDecoder(response.Body).Decode(&document) != nil {
		_, _ = io.Copy(io.Discard, response.Body) // the answer is text; read it all, so that the connection is reused
	}
	return response.StatusCode, document, nil
}

// drainDelay is how long a verifier must serve after it was ready for the last time.
const drainDelay = time.Second

// httpLoad calls one ready verifier after another, each over a connection that it keeps.
func httpLoad(ctx context.Context, verifiers []*atomic.Pointer[controlplane.Verifier], token string, asked *atomic.Int64, failed chan<- string) {
	c := &http.Client{Transport: &http.Transport{}}
	call := func(url string) (int, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return 0, err
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := c.Do(request)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return response.StatusCode, err
	}
	for ctx.Err() == nil {
		for _, p := range verifiers {
			v, since := p.Load(), time.Now()
			// A Service's endpoints are the verifiers that were ready a moment ago.
			if status, err := call(v.Probes + "/readyz"); err != nil || status != http.StatusOK {
				continue
			}
			for range 20 {
				status, err := call(v.HTTP + "/auth?role=" + roleRead)
				if ctx.Err() != nil {
					return
				}
				if err != nil && time.Since(since) >= drainDelay {
					break // it may have ended meanwhile
				}
				asked.Add(1)
				if err != nil || status != http.StatusOK {
					failed <- fmt.Sprintf("HTTP: %d, %v", status, err)
				}
			}
		}
	}
}

// grpcLoad calls all healthy verifiers in turn, as Envoy does.
func grpcLoad(ctx context.Context, at []controlplane.VerifierAddresses, token string, asked *atomic.Int64, failed chan<- string) {
	scheme := manual.NewBuilderWithScheme("verifiers")
	state := resolver.State{}
	for _, a := range at {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: a.GRPC})
	}
	scheme.InitialState(state)
	connection, err := grpc.NewClient("verifiers:///all", grpc.WithResolvers(scheme), insecureOption(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}`))
	if err != nil {
		failed <- err.Error()
		return
	}
	defer func() { _ = connection.Close() }()
	envoy := authv3.NewAuthorizationClient(connection)
	for ctx.Err() == nil {
		response, err := envoy.Check(ctx, envoyRequest(outside, roleRead, map[string]string{"x-api-key": token}), grpc.WaitForReady(true))
		if ctx.Err() != nil {
			return
		}
		asked.Add(1)
		if err != nil || response.GetOkResponse() == nil {
			failed <- fmt.Sprintf("gRPC: %v, %v", response, err)
		}
	}
}

func postJSON(c *http.Client, url, body string) string {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// metric returns the value of a series, as Prometheus would scrape it.
func metric(v *controlplane.Verifier, series string) string {
	GinkgoHelper()
	monitoring, err := plane.As(ctx, "default", "default")
	Expect(err).NotTo(HaveOccurred())
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "monitoring"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "apikey-operator-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "default"}},
	}
	Expect(client.IgnoreAlreadyExists(admin.Create(ctx, binding))).To(Succeed())
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	var found string
	Eventually(func(g Gomega) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.Metrics+"/metrics", nil)
		g.Expect(err).NotTo(HaveOccurred())
		request.Header.Set("Authorization", "Bearer "+monitoring.BearerToken)
		response, err := c.Do(request)
		g.Expect(err).NotTo(HaveOccurred())
		defer func() { _ = response.Body.Close() }()
		g.Expect(response.StatusCode).To(Equal(http.StatusOK))
		text, err := io.ReadAll(response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		for line := range strings.SplitSeq(string(text), "\n") {
			if value, ok := strings.CutPrefix(line, series+" "); ok {
				found = value
			}
		}
	}).Should(Succeed())
	return found
}

// writeCertificate writes a self-signed certificate to a folder and returns its serial number.
func writeCertificate(dir string) *big.Int {
	GinkgoHelper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	number, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{CommonName: "verifier"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	Expect(err).NotTo(HaveOccurred())
	private, err := x509.MarshalPKCS8PrivateKey(key)
	Expect(err).NotTo(HaveOccurred())
	for name, block := range map[string]*pem.Block{
		"tls.key": {Type: "PRIVATE KEY", Bytes: private}, "tls.crt": {Type: "CERTIFICATE", Bytes: certificate},
	} {
		// Replace each file atomically, as the kubelet does.
		next := filepath.Join(dir, name+".next")
		Expect(os.WriteFile(next, pem.EncodeToMemory(block), 0o600)).To(Succeed())
		Expect(os.Rename(next, filepath.Join(dir, name))).To(Succeed())
	}
	return number
}
