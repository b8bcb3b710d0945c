package gateways

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/gateway"
)

const (
	headerOwner = "X-Apikey-Attribute-Owner"
	headerPlan  = "X-Apikey-Attribute-Plan"
)

// withPlan adds the attribute plan to a documented configuration, as a user would: it repeats each line that names owner. Lines that are only
// comments in the file begin to count.
func withPlan(site string) string {
	GinkgoHelper()
	site = regexp.MustCompile(`(?m)^(\s*)# ([a-z_]+ X-Apikey-Attribute-Owner)`).ReplaceAllString(site, "$1$2")
	lines := regexp.MustCompile(`(?im)^.*x[-_]apikey[-_]attribute[-_]owner.*\n`)
	Expect(lines.FindAllString(site, -1)).NotTo(BeEmpty())
	return lines.ReplaceAllStringFunc(site, func(line string) string {
		return line + strings.NewReplacer("Owner", "Plan", "owner", "plan").Replace(line)
	})
}

// forged are headers by which a client claims attributes, also for servers that treat a dash, an underscore and a dot alike.
var forged = []string{
	headerOwner, "admin", "x-apikey-attribute-owner", "admin", headerPlan, "admin", "X_Apikey_Attribute_Owner", "admin",
	"X-Apikey_Attribute-Owner", "admin", "X.Apikey.Attribute.Owner", "admin",
}

// attributed declares the specs of attributes for a gateway that calls the verifier over forward-auth.
func attributed(program string, start starter, edit func(string) string) {
	Describe(program+" and attributes", Ordered, func() {
		var (
			behind *api
			asked  *controlplane.Verifier
			near   *http.Client
			ns     string
		)
		BeforeAll(func() {
			behind, ns, near = startAPI(), namespace(), httpClient(inside)
			asked = startVerifier(addresses(), "--trusted-proxies="+trustedProxy+"/32", "--forward-attributes=owner,plan")
		})

		// through sends a request and returns the headers that the API gets. None of them may be one that the client made up.
		through := func(url, token string, headers ...string) http.Header {
			GinkgoHelper()
			headers = append([]string{"X-Api-Key", token}, headers...)
			Eventually(func() int { return statusOf(near, url+"/orders", headers...) }).Should(Equal(http.StatusOK))
			_, seen := behind.seen()
			for name, values := range seen {
				if name != "Connection" {
					Expect(strings.Join(values, " ")).NotTo(ContainSubstring("admin"), name)
				}
			}
			return seen
		}
		connections := []string{"keep-alive", "close, " + headerOwner + ", " + headerPlan}

		It("passes on those of the key, and none that a client made up", func() {
			url := startGateway(program, start, asked, behind.address(), edit)
			_, owned := issue(ns, "owned", build.Attribute("owner", "team-shop"), build.Attribute("plan", "a=b, c"))
			_, half := issue(ns, "half", build.Attribute("plan", "gold"))
			_, plain := issue(ns, "plain")
			for _, connection := range connections {
				for token, want := range map[string][2]string{owned: {"team-shop", "a=b, c"}, half: {"-", "gold"}, plain: {"-", "-"}} {
					seen := through(url, token, append([]string{"Connection", connection}, forged...)...)
					Expect(seen.Values(headerOwner)).To(Equal([]string{want[0]}), connection)
					Expect(seen.Values(headerPlan)).To(Equal([]string{want[1]}), connection)
				}
			}
			seen := through(url, owned)
			Expect(seen.Values(headerOwner)).To(Equal([]string{"team-shop"}), "without a forged header")
		})

		It("passes on no owner that a client made up if the verifier forwards none, with the file as it is", func() {
			url := startGateway(program, start, verifier, behind.address(), nil)
			_, owned := issue(ns, "unforwarded", build.Attribute("owner", "team-shop"))
			for _, connection := range connections {
				seen := through(url, owned, "Connection", connection, headerOwner, "admin", "X_Apikey_Attribute_Owner", "admin", "X.Apikey.Attribute.Owner", "admin")
				Expect(strings.Join(seen.Values(headerOwner), "")).To(BeEmpty(), connection)
			}
		})
	})
}

var _ = attributedBy()

func attributedBy() bool {
	attributed("nginx", gateway.Nginx, withPlan)
	attributed("caddy", gateway.Caddy, withPlan)
	attributed("traefik", gateway.Traefik, nil) // its expression covers every attribute
	return true
}

var _ = Describe("Attributes of a key", Label("releases"), func() {
	It("are told over ext_authz: the forwarded ones in headers, all in the metadata", func() {
		v := startVerifier(addresses(), "--forward-attributes=owner,cost-center")
		_, token := issue(namespace(), "owned", build.Attribute("owner", "team-shop"), build.Attribute("plan", "gold"))
		envoy := authv3.NewAuthorizationClient(dial(v.GRPC))
		var response *authv3.CheckResponse
		Eventually(func(g Gomega) {
			var err error
			response, err = envoy.Check(ctx, envoyRequest(outside, roleRead, map[string]string{
				"x-api-key": token, "x-apikey-attribute-owner": "admin", "x-apikey-attribute-plan": "admin",
			}))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(response.GetOkResponse()).NotTo(BeNil())
		}).Should(Succeed())
		set := map[string]string{}
		for _, option := range response.GetOkResponse().GetHeaders() {
			set[option.GetHeader().GetKey()] = option.GetHeader().GetValue()
		}
		Expect(set).To(And(HaveKeyWithValue("x-apikey-attribute-owner", "team-shop"), HaveKeyWithValue("x-apikey-attribute-cost-center", "-"), HaveLen(6)))
		Expect(response.GetOkResponse().GetHeadersToRemove()).To(ConsistOf("x-api-key", "x-apikey-attribute-plan"))
		Expect(response.GetDynamicMetadata().AsMap()).To(HaveKeyWithValue("attributes", map[string]any{"owner": "team-shop", "plan": "gold"}))
	})

	It("are told to kube-apiserver in the user's extra", func() {
		_, token := issue(namespace(), "user", build.Attribute("owner", "team-shop"), build.Attribute("cost-center", "42"))
		review := &authenticationv1.SelfSubjectReview{}
		Eventually(func() error { return as(token).Create(ctx, review) }).Should(Succeed())
		Expect(review.Status.UserInfo.Extra).To(And(
			HaveKeyWithValue("apikey-operator.io/owner", authenticationv1.ExtraValue{"team-shop"}),
			HaveKeyWithValue("apikey-operator.io/cost-center", authenticationv1.ExtraValue{"42"})))
	})

	It("are told to those who introspect", func() {
		c, caller := httpClient(outside), introspector()
		_, token := issue(namespace(), "introspected", build.Attribute("owner", "team-shop"))
		Eventually(func(g Gomega) {
			_, document, err := introspect(c, verifier, caller, url.Values{"token": {token}}.Encode())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(document).To(HaveKeyWithValue("apikey_attributes", map[string]any{"owner": "team-shop"}))
		}).Should(Succeed())
	})
})
