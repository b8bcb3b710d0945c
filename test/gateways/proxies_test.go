package gateways

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/gateway"
)

type starter func(ctx context.Context, root, dir string, behind gateway.Backends, out io.Writer) (*gateway.Gateway, error)

// startGateway starts a gateway in front of an API, with its documented configuration after edit, and returns its URL. The gateway stops at
// the end of the spec or of its container. If the gateway is not installed, the specs are skipped.
func startGateway(program string, start starter, asked *controlplane.Verifier, api string, edit func(string) string) string {
	GinkgoHelper()
	if _, ok := gateway.Find(plane.Root, program); !ok {
		Skip("LEFT OUT: " + program + " is not installed (apt-get install nginx-light caddy; make traefik), so it is not tested")
	}
	dir, err := os.MkdirTemp("", "gateway-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	// nginx's workers run as another user.
	Expect(os.Chmod(dir, 0o755)).To(Succeed())
	g, err := start(ctx, plane.Root, dir, gateway.Backends{
		Verifiers: []string{strings.TrimPrefix(asked.HTTP, "http://")}, API: api, Edit: edit,
	}, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(g.Stop)
	return g.URL
}

// proxied declares the specs of a gateway that calls the verifier over forward-auth.
func proxied(program string, start starter) {
	Describe(program+", configured as in docs/gateways", Ordered, func() {
		var (
			behind *api
			url    string
			ns     string
			near   *http.Client
		)
		BeforeAll(func() {
			behind, ns, near = startAPI(), namespace(), httpClient(inside)
			url = startGateway(program, start, verifier, behind.address(), nil)
		})

		// refused calls the API, expects a status, and checks that the request doesn't reach the API.
		refused := func(status int, c *http.Client, headers ...string) {
			GinkgoHelper()
			before, _ := behind.seen()
			Expect(statusOf(c, url+"/orders", headers...)).To(Equal(status))
			after, _ := behind.seen()
			Expect(after).To(Equal(before), "the API was called")
		}
		becomes := func(status int, c *http.Client, headers ...string) {
			GinkgoHelper()
			Eventually(func(g Gomega) { g.Expect(statusOf(c, url+"/orders", headers...)).To(Equal(status)) }).Should(Succeed())
		}

		It("allows a valid key, and passes its identity to the API but not the token", func() {
			key, token := issue(ns, "valid")
			for _, headers := range [][]string{
				{"Authorization", "Bearer " + token}, {"X-Api-Key", token}, {"Authorization", "Bearer " + token, "X-Api-Key", token},
			} {
				becomes(http.StatusOK, near, headers...)
				_, seen := behind.seen()
				Expect(seen.Values("X-Apikey-Namespace")).To(Equal([]string{ns}))
				Expect(seen.Values("X-Apikey-Name")).To(Equal([]string{"valid"}))
				Expect(seen.Values("X-Apikey-Uid")).To(Equal([]string{string(key.UID)}))
				Expect(seen.Values("X-Apikey-Roles")).To(Equal([]string{roleRead}))
				Expect(seen).NotTo(HaveKey("Authorization"))
				Expect(seen).NotTo(HaveKey("X-Api-Key"))
			}
		})

		It("refuses a request without a token, with a challenge", func() {
			status, headers := get(near, url+"/orders")
			Expect(status).To(Equal(http.StatusUnauthorized))
			Expect(headers.Get("WWW-Authenticate")).To(ContainSubstring("Bearer"))
			refused(http.StatusUnauthorized, near, "Authorization", "Basic dXNlcjpwYXNz")
		})

		It("refuses a suspended key, and lets it in again once it is resumed", func() {
			key, token := issue(ns, "suspended")
			becomes(http.StatusOK, near, "Authorization", "Bearer "+token)
			suspend(key, true)
			becomes(http.StatusUnauthorized, near, "Authorization", "Bearer "+token)
			suspend(key, false)
			becomes(http.StatusOK, near, "Authorization", "Bearer "+token)
		})

		It("refuses a revoked key", func() {
			key, token := issue(ns, "revoked")
			becomes(http.StatusOK, near, "Authorization", "Bearer "+token)
			revoke(key)
			becomes(http.StatusUnauthorized, near, "Authorization", "Bearer "+token)
			refused(http.StatusUnauthorized, near, "Authorization", "Bearer "+token)
		})

		It("refuses an expired key", func() {
			token := issueExpiring(ns, func(token string) bool {
				return statusOf(near, url+"/orders", "Authorization", "Bearer "+token) == http.StatusOK
			})
			becomes(http.StatusUnauthorized, near, "Authorization", "Bearer "+token)
			refused(http.StatusUnauthorized, near, "Authorization", "Bearer "+token)
		})

		It("refuses a key without the role", func() {
			_, token := issue(ns, "wrong-role", build.Roles(roleOther))
			becomes(http.StatusForbidden, near, "Authorization", "Bearer "+token)
			refused(http.StatusForbidden, near, "Authorization", "Bearer "+token)
		})

		It("refuses a key from outside of its networks, whatever the client says of itself", func() {
			_, token := issue(ns, "networks", build.CIDRs(insideCIDR))
			far := httpClient(outside)
			becomes(http.StatusOK, near, "Authorization", "Bearer "+token)
			refused(http.StatusForbidden, far, "Authorization", "Bearer "+token)
			for _, spoof := range []string{inside, inside + ", " + inside, trustedProxy, inside + "," + trustedProxy, "garbage", ""} {
				refused(http.StatusForbidden, far, "Authorization", "Bearer "+token, "X-Forwarded-For", spoof)
			}
			refused(http.StatusForbidden, far, "Authorization", "Bearer "+token, "X-Forwarded-For", inside, "X-Forwarded-For", inside)
			// A client that has the address of a trusted proxy can't either.
			refused(http.StatusForbidden, httpClient(trustedProxy), "Authorization", "Bearer "+token, "X-Forwarded-For", inside)
			refused(http.StatusForbidden, far, "Authorization", "Bearer "+token, "X-Real-Ip", inside, "Forwarded", "for="+inside)
			Expect(statusOf(near, url+"/orders", "Authorization", "Bearer "+token, "X-Forwarded-For", outside)).To(Equal(http.StatusOK))
		})

		It("lets no identity through that the client made up", func() {
			key, token := issue(ns, "spoofer")
			becomes(http.StatusOK, near, "X-Api-Key", token)
			Expect(statusOf(near, url+"/orders", "X-Api-Key", token,
				"X-Apikey-Name", "admin", "X-Apikey-Namespace", "kube-system", "X-Apikey-Uid", "1", "X-Apikey-Roles", "org.admin.all",
				"x-apikey-name", "admin", "X_Apikey_Name", "admin")).To(Equal(http.StatusOK))
			_, seen := behind.seen()
			Expect(seen.Values("X-Apikey-Name")).To(Equal([]string{"spoofer"}))
			Expect(seen.Values("X-Apikey-Namespace")).To(Equal([]string{ns}))
			Expect(seen.Values("X-Apikey-Roles")).To(Equal([]string{roleRead}))
			for name, values := range seen {
				Expect(strings.Join(values, " ")).NotTo(ContainSubstring("admin"), name)
			}
			refused(http.StatusUnauthorized, near, "X-Apikey-Name", "admin", "X-Apikey-Roles", roleRead)

			// Neither may it fool servers that treat a dash, an underscore and a dot alike, or a proxy that the client tells to drop the headers that
			// it has just added.
			for _, connection := range []string{"keep-alive", "close, X-Apikey-Name, X-Apikey-Namespace, X-Apikey-Uid, X-Apikey-Roles"} {
				Expect(statusOf(near, url+"/orders", "X-Api-Key", token, "Connection", connection, "X-Apikey_Name", "admin", "X_Apikey-Name", "admin",
					"X.Apikey.Name", "admin", "X-Apikey.Name", "admin")).To(Equal(http.StatusOK))
				_, seen := behind.seen()
				Expect(seen.Values("X-Apikey-Name")).To(Equal([]string{"spoofer"}), connection)
				Expect(seen.Values("X-Apikey-Uid")).To(Equal([]string{string(key.UID)}), connection)
				for name, values := range seen {
					Expect(strings.Join(values, " ")).NotTo(ContainSubstring("admin"), name)
				}
			}
		})

		It("answers a header of a megabyte, and garbage, as the client's mistake", func() {
			_, token := issue(ns, "garbage")
			becomes(http.StatusOK, near, "X-Api-Key", token)
			before, _ := behind.seen()
			for name, lines := range map[string]string{
				"a megabyte of credential": "Authorization: Bearer " + strings.Repeat("x", 1_000_000),
				"a megabyte of something":  "X-Api-Key: garbage\r\nX-Other: " + strings.Repeat("x", 1_000_000),
				"20 KB of credential":      "Authorization: Bearer " + strings.Repeat("x", 7_000) + "\r\nX-Api-Key: " + strings.Repeat("y", 7_000),
				"bytes":                    "Authorization: Bearer \x80\xff\xfe",
				"control characters":       "Authorization: Bearer a\x01b",
				"a tab in the middle":      "Authorization: Bearer a\tb",
				"a nul":                    "X-Api-Key: a\x00b",
				"an invalid name":          "X Api Key: a",
				"no colon":                 "Authorization",
				"two tokens":               "Authorization: Bearer " + token + "\r\nAuthorization: Bearer ak_x",
				"an empty value":           "Authorization:",
			} {
				line := raw(url, "GET /orders HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n"+lines+"\r\n\r\n")
				if line != "" { // else the gateway closed the connection
					Expect(line).To(MatchRegexp(`^HTTP/1\.[01] 4\d\d`), name)
				}
			}
			for name, text := range map[string]string{
				"no HTTP": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", "half a request": "GET /orders", "nonsense": strings.Repeat("\xff", 4096) + "\r\n\r\n",
			} {
				if name == "half a request" {
					text += " HTTP/1.1\r\n\r\n"
				}
				// Traefik takes the first text for the start of TLS and waits for the rest.
				if line := rawToTheEnd(url, text); line != "" {
					Expect(line).To(MatchRegexp(`4\d\d`), name)
				}
			}
			after, _ := behind.seen()
			Expect(after).To(Equal(before), "the API was called")
		})
	})
}

var _ = proxiedBy()

func proxiedBy() bool {
	for _, g := range []struct {
		program string
		start   starter
	}{{"nginx", gateway.Nginx}, {"caddy", gateway.Caddy}, {"traefik", gateway.Traefik}} {
		proxied(g.program, g.start)
		paths(g.program, g.start)
		queries(g.program, g.start)
	}
	return true
}
