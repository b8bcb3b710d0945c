package gateways

import (
	"net/http"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

func insecureOption() grpc.DialOption {
	return grpc.WithTransportCredentials(insecure.NewCredentials())
}

func dial(address string) *grpc.ClientConn {
	GinkgoHelper()
	connection, err := grpc.NewClient(address, insecureOption())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(connection.Close)
	return connection
}

// envoyRequest returns what Envoy sends for a request from an address.
func envoyRequest(from string, roles string, headers map[string]string) *authv3.CheckRequest {
	sent := map[string]string{":method": "GET", ":path": "/orders", ":authority": "shop.example", "user-agent": "curl/8"}
	for name, value := range headers {
		sent[name] = value
	}
	extensions := map[string]string{}
	if roles != "" {
		extensions["roles"] = roles
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: from, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711},
		}}}},
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/orders", Headers: sent}},
		ContextExtensions: extensions,
	}}
}

var _ = Describe("ext_authz, with the messages that Envoy sends", Ordered, func() {
	var (
		ns    string
		envoy authv3.AuthorizationClient
	)
	BeforeAll(func() {
		ns = namespace()
		envoy = authv3.NewAuthorizationClient(dial(verifier.GRPC))
	})

	// check returns the status that Envoy would answer. The call itself must not fail.
	check := func(from, roles string, headers map[string]string) int {
		GinkgoHelper()
		response, err := envoy.Check(ctx, envoyRequest(from, roles, headers))
		Expect(err).NotTo(HaveOccurred())
		if response.GetOkResponse() != nil {
			return http.StatusOK
		}
		return int(response.GetDeniedResponse().GetStatus().GetCode())
	}
	bearer := func(token string) map[string]string { return map[string]string{"authorization": "Bearer " + token} }
	becomes := func(status int, from, roles, token string) {
		GinkgoHelper()
		Eventually(func() int { return check(from, roles, bearer(token)) }).Should(Equal(status))
	}

	It("allows a valid key, and refuses others", func() {
		key, token := issue(ns, "valid")
		_, other := issue(ns, "other", build.Roles(roleOther))
		expiring := issueExpiring(ns, func(token string) bool { return check(outside, roleRead, bearer(token)) == http.StatusOK })
		becomes(http.StatusOK, outside, roleRead, token)
		becomes(http.StatusForbidden, outside, roleRead, other)
		becomes(http.StatusUnauthorized, outside, roleRead, expiring)
		Expect(check(outside, roleRead, nil)).To(Equal(http.StatusUnauthorized))
		suspend(key, true)
		becomes(http.StatusUnauthorized, outside, roleRead, token)
		suspend(key, false)
		becomes(http.StatusOK, outside, roleRead, token)
		revoke(key)
		becomes(http.StatusUnauthorized, outside, roleRead, token)
	})

	It("takes the peer for the client, and X-Forwarded-For only from a trusted proxy", func() {
		_, token := issue(ns, "networks", build.CIDRs(insideCIDR))
		becomes(http.StatusOK, inside, roleRead, token)
		Expect(check(outside, roleRead, bearer(token))).To(Equal(http.StatusForbidden))
		spoofed := map[string]string{"authorization": "Bearer " + token, "x-forwarded-for": inside}
		Expect(check(outside, roleRead, spoofed)).To(Equal(http.StatusForbidden))
		Expect(check(trustedProxy, roleRead, spoofed)).To(Equal(http.StatusOK))
		spoofed["x-forwarded-for"] = inside + "," + outside
		Expect(check(trustedProxy, roleRead, spoofed)).To(Equal(http.StatusForbidden))
	})

	It("removes identities that a client made up", func() {
		_, token := issue(ns, "spoofer")
		becomes(http.StatusOK, outside, roleRead, token)
		response, err := envoy.Check(ctx, envoyRequest(outside, roleRead, map[string]string{
			"x-api-key": token, "x-apikey-name": "admin", "x_apikey_name": "admin", "x-apikey-scope": "all",
		}))
		Expect(err).NotTo(HaveOccurred())
		Expect(response.GetOkResponse().GetHeadersToRemove()).To(ConsistOf("x-api-key", "x_apikey_name", "x-apikey-scope"))
		Expect(response.GetOkResponse().GetHeaders()).To(HaveLen(4))
	})

	It("denies a header of a megabyte, and garbage, in a call that succeeds", func() {
		for _, value := range []string{strings.Repeat("x", 1_000_000), "Bearer " + strings.Repeat("x", 1_000_000), "Bearer \x01", "Bearer !\u00ff"} {
			Expect(check(outside, roleRead, map[string]string{"authorization": value, "x-api-key": "?"})).To(Equal(http.StatusUnauthorized))
		}
		Expect(check("garbage", "", bearer("garbage"))).To(Equal(http.StatusUnauthorized))
		_, err := envoy.Check(ctx, &authv3.CheckRequest{})
		Expect(err).NotTo(HaveOccurred())
	})

	It("serves gRPC health", func() {
		health := healthv1.NewHealthClient(dial(verifier.GRPC))
		for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
			answer, err := health.Check(ctx, &healthv1.HealthCheckRequest{Service: service})
			Expect(err).NotTo(HaveOccurred())
			Expect(answer.GetStatus()).To(Equal(healthv1.HealthCheckResponse_SERVING))
		}
	})
})
