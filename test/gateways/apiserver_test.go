package gateways

import (
	"bytes"
	"net/http"
	"os/exec"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// as returns a client of the API server that authenticates with a token.
func as(token string) client.Client {
	GinkgoHelper()
	config := rest.AnonymousClientConfig(plane.Admin)
	config.BearerToken = token
	config.QPS = -1
	httpClient, err := rest.HTTPClientFor(config)
	Expect(err).NotTo(HaveOccurred())
	c, err := client.New(config, client.Options{HTTPClient: httpClient, Mapper: admin.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	return c
}

var _ = Describe("kube-apiserver with the verifier as its token webhook", Label("releases"), Ordered, func() {
	var ns string

	BeforeAll(func() {
		ns = namespace()
		Expect(admin.Create(ctx, &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "orders"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}},
		})).To(Succeed())
		Expect(admin.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "orders"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "orders"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "apikey:" + roleRead}},
		})).To(Succeed())
	})

	list := func(c client.Client, kind client.ObjectList, namespace string) error {
		return c.List(ctx, kind, client.InNamespace(namespace))
	}
	reads := func(token string) error { return list(as(token), &corev1.ConfigMapList{}, ns) }

	It("allows a role exactly what a RoleBinding to its group allows", func() {
		key, token := issue(ns, "reader")
		c := as(token)
		Eventually(func() error { return list(c, &corev1.ConfigMapList{}, ns) }).Should(Succeed())
		for what, err := range map[string]error{
			"another namespace": list(c, &corev1.ConfigMapList{}, "default"),
			"another resource":  list(c, &corev1.SecretList{}, ns),
			"another verb":      c.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x"}}),
		} {
			Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", what, err)
		}
		review := &authenticationv1.SelfSubjectReview{}
		Expect(c.Create(ctx, review)).To(Succeed())
		Expect(review.Status.UserInfo.Username).To(Equal("apikey:" + ns + ":reader"))
		Expect(review.Status.UserInfo.UID).To(Equal(string(key.UID)))
		Expect(review.Status.UserInfo.Groups).To(ConsistOf("apikey:"+roleRead, "system:authenticated"))
	})

	It("forbids everything to a key with another role", func() {
		_, token := issue(ns, "writer", build.Roles(roleOther))
		Eventually(func() bool { return apierrors.IsForbidden(reads(token)) }).Should(BeTrue())
	})

	It("refuses a key with networks, because the API server doesn't pass the client's address", func() {
		_, token := issue(ns, "networks", build.CIDRs("0.0.0.0/0", "::/0"))
		Consistently(func() bool { return apierrors.IsUnauthorized(reads(token)) }, "300ms").Should(BeTrue())
		Eventually(func() bool {
			return output.Contains(`"result":"AddressDenied","namespace":"` + ns + `","name":"networks"`)
		}).Should(BeTrue())
	})

	It("refuses a suspended key, and reads for it again once it is resumed", func() {
		key, token := issue(ns, "suspended")
		Eventually(func() error { return reads(token) }).Should(Succeed())
		suspend(key, true)
		Eventually(func() bool { return apierrors.IsUnauthorized(reads(token)) }).Should(BeTrue())
		suspend(key, false)
		Eventually(func() error { return reads(token) }).Should(Succeed())
	})

	It("refuses a revoked key, and an expired one", func() {
		key, token := issue(ns, "revoked")
		expiring := issueExpiring(ns, func(token string) bool { return reads(token) == nil })
		Eventually(func() error { return reads(token) }).Should(Succeed())
		revoke(key)
		Eventually(func() bool { return apierrors.IsUnauthorized(reads(token)) }).Should(BeTrue())
		Eventually(func() bool { return apierrors.IsUnauthorized(reads(expiring)) }).Should(BeTrue())
	})

	It("refuses garbage, a megabyte of it, and identities that a client made up", func() {
		for _, garbage := range []string{"garbage", "ak_" + strings.Repeat("0", 49), "ak_" + strings.Repeat("x", 1_000_000), "Bearer"} {
			err := reads(garbage)
			Expect(err).To(HaveOccurred())
			status, ok := err.(apierrors.APIStatus)
			if ok {
				Expect(status.Status().Code).To(And(BeNumerically(">=", 400), BeNumerically("<", 500)), err.Error())
			}
		}
		_, token := issue(ns, "spoofer", build.Roles(roleOther))
		Eventually(func() bool { return apierrors.IsForbidden(reads(token)) }).Should(BeTrue())
		config := rest.AnonymousClientConfig(plane.Admin)
		transport, err := rest.TransportFor(config)
		Expect(err).NotTo(HaveOccurred())
		c := &http.Client{Transport: transport}
		url := plane.Admin.Host + "/api/v1/namespaces/" + ns + "/configmaps"
		if !strings.HasPrefix(url, "http") {
			url = "https://" + url
		}
		Expect(statusOf(c, url, "Authorization", "Bearer "+token, "X-Remote-User", "admin", "X-Remote-Group", "system:masters",
			"X-Apikey-Roles", roleRead, "X-Forwarded-For", inside)).To(Equal(http.StatusForbidden))
	})

	It("authenticates kubectl", func() {
		_, token := issue(ns, "kubectl")
		var out bytes.Buffer
		Eventually(func() error {
			out.Reset()
			command := exec.CommandContext(ctx, plane.Kubectl(), "--kubeconfig=/dev/null", "--server="+plane.Admin.Host,
				"--insecure-skip-tls-verify", "--token="+token, "auth", "whoami")
			command.Stdout, command.Stderr = &out, &out
			return command.Run()
		}).Should(Succeed())
		Expect(out.String()).To(ContainSubstring("apikey:" + ns + ":kubectl"))
	})
})
