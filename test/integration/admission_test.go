package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// How the admission policies explain a refusal. The API server puts its own words before these.
const (
	statusRefused  = "only the operator's service account (which has the verb issue on apikeys, but not by a wildcard) may write status"
	createRefused  = "may create a Secret of type apikey-operator.io/token; to get a token, create an ApiKey"
	contentRefused = "the data, the type and the field immutable of a Secret of type apikey-operator.io/token can't be changed"
	ownerRefused   = "the owner of a Secret of type apikey-operator.io/token can't be changed"
	limitRefused   = "may create, change and delete only Secrets of type apikey-operator.io/token"
)

// serviceAccount creates a service account and returns a client that uses it. The account may do what the given ClusterRoles allow: in its
// namespace, or, if everywhere is set, in the whole cluster.
func serviceAccount(ns, name string, everywhere bool, clusterRoles ...string) client.Client {
	GinkgoHelper()
	create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}})
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: name}}
	for _, role := range clusterRoles {
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
		if everywhere {
			create(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: ns + "-" + name + "-" + role}, RoleRef: ref, Subjects: subjects})
		} else {
			create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name + "-" + role}, RoleRef: ref, Subjects: subjects})
		}
	}
	config, err := plane.As(ctx, ns, name)
	Expect(err).NotTo(HaveOccurred())
	c, err := client.New(config, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return c
}

// clusterRole creates a ClusterRole and deletes it at the end of the spec. It returns the name.
func clusterRole(name string, rules ...rbacv1.PolicyRule) string {
	GinkgoHelper()
	create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules})
	DeferCleanup(func() {
		Expect(admin.Delete(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	})
	return name
}

// mayWriteStatus is a permission that no ClusterRole of config/roles grants.
var mayWriteStatus = rbacv1.PolicyRule{
	APIGroups: []string{"apikey-operator.io"}, Resources: []string{"apikeys/status"}, Verbs: []string{"create", "update", "patch"},
}

// unwritten is the status of a key before anybody has written it.
var unwritten = v1alpha1.ApiKeyStatus{ObservedGeneration: -1}

func writeStatus(c client.Client, key *v1alpha1.ApiKey, digest token.Digest) error {
	body := fmt.Sprintf(`{"status":{"hash":%q}}`, digest.String())
	return c.Status().Patch(ctx, key.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(body)))
}

func opaque(ns, name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Data: map[string][]byte{"password": []byte("theirs")}}
}

// kubectl runs kubectl as the administrator in the repository's root folder, and returns its output.
func kubectl(args ...string) (string, error) { return plane.RunKubectl(ctx, "", args...) }

var _ = Describe("A namespace admin", Label("releases"), func() {
	var (
		ns     string
		tenant client.Client
		key    *v1alpha1.ApiKey
	)
	BeforeEach(func() {
		ns = namespace()
		tenant = serviceAccount(ns, "tenant", false, "admin")
		key = build.ApiKey(ns, "own")
		// A controller aggregates the ClusterRole admin some time after the installation.
		Eventually(func() error { return tenant.Create(ctx, key) }).Should(Succeed())
	})

	It("can't write a status", func() {
		planted := token.Mint("ak").Digest()
		Expect(writeStatus(tenant, key, planted)).To(MatchError(ContainSubstring(`cannot patch resource "apikeys/status"`)), "RBAC refuses")

		everything := serviceAccount(ns, "careless", false, clusterRole(ns+"-status", mayWriteStatus))
		Eventually(func() error { return writeStatus(everything, key, planted) }).Should(MatchError(ContainSubstring(statusRefused)),
			"the admission policy refuses where RBAC allows")
		changed := reread(key.DeepCopy())
		changed.Status.Hash = planted.String()
		Expect(everything.Status().Update(ctx, changed)).To(MatchError(ContainSubstring(statusRefused)))
		Expect(reread(key).Status).To(Equal(unwritten))
	})

	It("can't smuggle a status in with the rest of a key", func() {
		digest := token.Mint("ak").Digest().String()
		changed := reread(key.DeepCopy())
		changed.Status.Hash = digest
		Expect(tenant.Update(ctx, changed)).To(Succeed())
		Expect(reread(key).Status).To(Equal(unwritten), "the update succeeds and ignores the status")

		born := build.ApiKey(ns, "born")
		born.Status.Hash = digest
		Expect(tenant.Create(ctx, born)).To(Succeed())
		Expect(reread(born).Status).To(Equal(unwritten))
	})

	It("can't copy another key's digest into its own key", func() {
		other := build.ApiKey(namespace(), "other")
		create(other)
		settle(controllers(options()), other)
		expectIssued(other)
		stolen, err := token.ParseDigest(other.Status.Hash)
		Expect(err).NotTo(HaveOccurred())
		Expect(writeStatus(tenant, key, stolen)).To(MatchError(ContainSubstring("forbidden")))
		careless := serviceAccount(ns, "careless", false, "admin", clusterRole(ns+"-status", mayWriteStatus))
		Eventually(func() error { return writeStatus(careless, key, stolen) }).Should(MatchError(ContainSubstring(statusRefused)))
		Expect(reread(key).Status).To(Equal(unwritten))
	})

	It("can't plant a Secret before the operator gets there", func() {
		text := token.Mint("ak").Reveal()
		Expect(tenant.Create(ctx, build.TokenSecret(key, text))).To(MatchError(And(
			ContainSubstring(createRefused), Not(ContainSubstring(text)))))
		settle(controllers(options()), key)
		expectIssued(key)
	})

	It("can't change what is in a delivered Secret, nor put another in its place", func() {
		settle(controllers(options()), key)
		delivered := reread(secretOf(key))
		text := token.Mint("ak").Reveal()
		change := func(change func(*corev1.Secret)) error {
			changed := delivered.DeepCopy()
			change(changed)
			err := tenant.Update(ctx, changed)
			if err != nil {
				Expect(err.Error()).NotTo(Or(ContainSubstring(text), ContainSubstring(string(delivered.Data["token"]))))
			}
			return err
		}
		Expect(change(func(s *corev1.Secret) { s.Data["token"] = []byte(text) })).To(MatchError(ContainSubstring(contentRefused)))
		Expect(change(func(s *corev1.Secret) { s.Immutable = ptr.To(true) })).To(MatchError(ContainSubstring(contentRefused)))
		Expect(change(func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque })).To(MatchError(ContainSubstring("immutable")))
		Expect(change(func(s *corev1.Secret) { s.OwnerReferences = nil })).To(MatchError(ContainSubstring(ownerRefused)))
		Expect(change(func(s *corev1.Secret) { s.OwnerReferences[0].UID = "00000000-0000-0000-0000-000000000000" })).
			To(MatchError(ContainSubstring(ownerRefused)))
		expectIssued(key)

		Expect(tenant.Delete(ctx, delivered)).To(Succeed())
		Expect(tenant.Create(ctx, build.TokenSecret(key, text))).To(MatchError(ContainSubstring(createRefused)))
	})

	It("can't change a token Secret that is not immutable, and can't turn another Secret into one", func() {
		secret := build.TokenSecret(key, token.Mint("ak").Reveal())
		plant(secret)
		change := func(s *corev1.Secret, change func(*corev1.Secret)) error {
			changed := reread(s.DeepCopy())
			change(changed)
			return tenant.Update(ctx, changed)
		}
		Expect(change(secret, func(s *corev1.Secret) { s.Data["token"] = []byte("another") })).To(MatchError(ContainSubstring(contentRefused)))
		Expect(change(secret, func(s *corev1.Secret) { s.Data["more"] = []byte("another") })).To(MatchError(ContainSubstring(contentRefused)))
		Expect(change(secret, func(s *corev1.Secret) { s.StringData = map[string]string{"token": "another"} })).
			To(MatchError(ContainSubstring(contentRefused)))
		Expect(change(secret, func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque })).To(MatchError(ContainSubstring("field is immutable")))

		other := opaque(ns, "other")
		Expect(tenant.Create(ctx, other)).To(Succeed())
		Expect(change(other, func(s *corev1.Secret) { s.Type = v1alpha1.SecretType })).To(MatchError(ContainSubstring("field is immutable")))
		Expect(change(other, func(s *corev1.Secret) { s.Data["password"] = []byte("changed") })).To(Succeed(), "other Secrets are free to change")
	})

	It("may claim its token, label its token Secret, and delete its key with or without the Secret", func() {
		c := controllers(options())
		settle(c, key)
		secret := reread(secretOf(key))
		secret.Labels["team"] = "a"
		secret.Finalizers = []string{"example.com/hold"}
		Expect(tenant.Update(ctx, secret)).To(Succeed())
		secret.Finalizers = nil
		Expect(tenant.Update(ctx, secret)).To(Succeed())
		Expect(tenant.Delete(ctx, secret)).To(Succeed())

		taken := build.ApiKey(ns, "taken-along")
		Expect(tenant.Create(ctx, taken)).To(Succeed())
		settle(c, taken)
		Expect(tenant.Delete(ctx, taken)).To(Succeed())
		Eventually(func() bool { return exists(secretOf(taken)) }).Should(BeFalse(), "the garbage collector may delete it")

		left := build.ApiKey(ns, "left-behind")
		Expect(tenant.Create(ctx, left)).To(Succeed())
		settle(c, left)
		Expect(tenant.Delete(ctx, left, client.PropagationPolicy(metav1.DeletePropagationOrphan))).To(Succeed())
		Eventually(func() bool { return exists(left.DeepCopy()) }).Should(BeFalse(), "the garbage collector may orphan the Secret")
		Expect(reread(secretOf(left)).OwnerReferences).To(BeEmpty())
	})

	It("can't label its namespace, to be under another policy", func() {
		labels := func(c client.Client) error {
			return c.Patch(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
				client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"platform"}}}`)))
		}
		Expect(labels(tenant)).To(MatchError(ContainSubstring(`cannot patch resource "namespaces"`)))
		object := &corev1.Namespace{}
		Expect(tenant.Get(ctx, client.ObjectKey{Name: ns}, object)).To(Succeed())
		object.Labels["team"] = "platform"
		Expect(tenant.Update(ctx, object)).To(MatchError(ContainSubstring(`cannot update resource "namespaces"`)))
		Expect(reread(object).Labels).NotTo(HaveKey("team"))

		mighty := serviceAccount(ns, "mighty", false, clusterRole(ns+"-mighty",
			rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"patch"}}))
		Eventually(func() error { return labels(mighty) }).Should(Succeed(), "only RBAC prevents this, so tenants must not have the permission")
	})

	It("does not pass for the operator by handing out wildcards of its own namespace", func() {
		// A tenant that has all permissions in its namespace may grant any of them there, including the operator's verb.
		owner := serviceAccount(ns, "owner", false, clusterRole(ns+"-owner",
			rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}))
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "pretender"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"apikey-operator.io"}, Resources: []string{"apikeys"}, Verbs: []string{"issue"}}, mayWriteStatus,
			{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
		}}
		Eventually(func() error { return owner.Create(ctx, role) }).Should(Succeed())
		pretender := serviceAccount(ns, "pretender", false)
		Expect(owner.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "pretender"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "pretender"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "pretender"}},
		})).To(Succeed())
		digest := token.Mint("ak").Digest()
		for _, c := range []client.Client{owner, pretender} {
			Eventually(func() error { return writeStatus(c, key, digest) }).Should(MatchError(ContainSubstring(statusRefused)))
			Expect(c.Create(ctx, build.TokenSecret(key, "x"))).To(MatchError(ContainSubstring(createRefused)))
		}
		// It can't grant itself the verb in the whole cluster, where the admission policies look for it.
		Expect(owner.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: ns + "-pretender"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "apikey-operator"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "pretender"}},
		})).To(MatchError(ContainSubstring("forbidden")))
	})
})

var _ = Describe("A cluster administrator", Label("releases"), func() {
	It("is not an exception: not as system:masters, and not as a service account such as a GitOps controller's", func() {
		ns := namespace()
		gitops := serviceAccount(ns, "gitops", true, "cluster-admin")
		key := build.ApiKey(ns, "guarded")
		create(key)
		settle(controllers(options()), key)
		secret := reread(secretOf(key))
		for _, c := range []client.Client{admin, gitops} {
			bare := build.ApiKey(ns, "bare")
			Eventually(func() error { return client.IgnoreAlreadyExists(c.Create(ctx, bare)) }).Should(Succeed())
			reread(bare)
			Expect(writeStatus(c, bare, token.Mint("ak").Digest())).To(MatchError(ContainSubstring(statusRefused)))
			Expect(c.Create(ctx, build.TokenSecret(bare, "x"))).To(MatchError(ContainSubstring(createRefused)))
			loose := secret.DeepCopy()
			loose.OwnerReferences = nil
			Expect(c.Update(ctx, loose)).To(MatchError(ContainSubstring(ownerRefused)))

			By("it may still write other Secrets: it doesn't fall under the operator's limits")
			theirs := opaque(ns, "theirs")
			Expect(c.Create(ctx, theirs)).To(Succeed())
			Expect(c.Delete(ctx, theirs)).To(Succeed())
		}
	})
})

var _ = Describe("A thief with the operator's token", Label("releases"), func() {
	It("makes and deletes no Secret of another type, and lists none", func() {
		ns := namespace()
		theirs := opaque(ns, "theirs")
		create(theirs)
		Expect(self.Create(ctx, opaque(ns, "new"))).To(MatchError(ContainSubstring(limitRefused)))
		serviceAccountToken := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: ns, Annotations: map[string]string{
				corev1.ServiceAccountNameKey: "namespace-controller",
			}},
			Type: corev1.SecretTypeServiceAccountToken,
		}
		Expect(self.Create(ctx, serviceAccountToken)).To(MatchError(ContainSubstring(limitRefused)),
			"it would get the token of a more powerful account")
		Expect(self.Delete(ctx, theirs)).To(MatchError(And(ContainSubstring(limitRefused), Not(ContainSubstring("dGhlaXJz")))))
		Expect(self.Delete(ctx, theirs, client.GracePeriodSeconds(0), client.PropagationPolicy(metav1.DeletePropagationForeground))).
			To(MatchError(ContainSubstring(limitRefused)))
		Expect(self.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(ns))).To(MatchError(ContainSubstring("cannot deletecollection")))
		Expect(self.List(ctx, &corev1.SecretList{}, client.InNamespace(ns))).To(MatchError(ContainSubstring("cannot list")))
		theirs.Data["password"] = []byte("changed")
		Expect(self.Update(ctx, theirs)).To(MatchError(ContainSubstring("cannot update")))
		Expect(exists(theirs)).To(BeTrue())
	})

	It("changes no Secret of another type, and turns none into a token Secret or back", func() {
		ns := namespace()
		key := build.ApiKey(ns, "own")
		create(key)
		settle(controllers(options()), key)
		theirs, ours := opaque(ns, "theirs"), reread(secretOf(key))
		create(theirs)
		before := reread(theirs.DeepCopy())
		patch := func(secret *corev1.Secret, kind types.PatchType, body string) error {
			return self.Patch(ctx, secret.DeepCopy(), client.RawPatch(kind, []byte(body)))
		}
		for _, body := range []string{
			`{"data":{"password":"Y2hhbmdlZA=="}}`, `{"data":{"token":"Y2hhbmdlZA=="}}`, `{"metadata":{"labels":{"a":"b"}}}`, `{"immutable":true}`,
			`{"metadata":{"ownerReferences":[{"apiVersion":"apikey-operator.io/v1alpha1","kind":"ApiKey","name":"own","uid":"` + string(key.UID) + `"}]}}`,
		} {
			for _, kind := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
				Expect(patch(theirs, kind, body)).To(MatchError(ContainSubstring(limitRefused)), body)
			}
		}
		Expect(patch(theirs, types.JSONPatchType, `[{"op":"replace","path":"/data/password","value":"Y2hhbmdlZA=="}]`)).
			To(MatchError(ContainSubstring(limitRefused)))
		applied := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"%s"},"data":{"password":"Y2hhbmdlZA=="}}`
		for _, name := range []string{theirs.Name, "applied"} {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
			Expect(self.Patch(ctx, secret, client.RawPatch(types.ApplyPatchType, fmt.Appendf(nil, applied, name)), client.ForceOwnership,
				client.FieldOwner("thief"))).To(MatchError(ContainSubstring(limitRefused)), "server-side apply of %s", name)
		}

		By("the type can't be changed by anybody")
		Expect(patch(theirs, types.MergePatchType, `{"type":"apikey-operator.io/token"}`)).To(MatchError(ContainSubstring("field is immutable")))
		Expect(patch(ours, types.MergePatchType, `{"type":"Opaque"}`)).To(MatchError(ContainSubstring("field is immutable")))
		Expect(reread(theirs)).To(Equal(before))
		Expect(reread(secretOf(key)).UID).To(Equal(ours.UID))
		expectIssued(key)
	})
})

// These specs change the installation on which all other specs depend, so they run alone.
var _ = Describe("The admission policies", Label("releases"), Serial, func() {
	apply := func(args ...string) {
		GinkgoHelper()
		out, err := kubectl(args...)
		Expect(err).NotTo(HaveOccurred(), out)
	}

	It("keep refusing, and block nobody else, after the operator's account and roles are deleted", func() {
		ns := namespace()
		tenant := serviceAccount(ns, "tenant", false, "admin")
		key := build.ApiKey(ns, "left")
		create(key)
		settle(controllers(options()), key)
		DeferCleanup(func() {
			apply("apply", "-k", "config/default")
			// A new service account with the same name has another UID, and needs another token.
			config, err := plane.As(ctx, controlplane.Namespace, controlplane.ServiceAccount)
			Expect(err).NotTo(HaveOccurred())
			asSelf.BearerToken = config.BearerToken
			self, err = client.New(asSelf, client.Options{Scheme: harness.Scheme()})
			Expect(err).NotTo(HaveOccurred())
			Expect(plane.WaitGuarded(ctx, controlplane.Namespace, controlplane.ServiceAccount)).To(Succeed())
		})
		apply("delete", "-k", "config/manager", "--wait=false")
		apply("delete", "-k", "config/rbac", "--ignore-not-found")
		Eventually(func() bool {
			return exists(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "apikey-operator"}})
		}).Should(BeFalse())
		Eventually(func() bool {
			return exists(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: controlplane.Namespace}})
		}).Should(BeFalse())

		theirs := opaque(ns, "theirs")
		Expect(tenant.Create(ctx, theirs)).To(Succeed())
		theirs.Data["password"] = []byte("changed")
		Expect(tenant.Update(ctx, theirs)).To(Succeed())
		Expect(tenant.Delete(ctx, theirs)).To(Succeed())
		Expect(tenant.Create(ctx, build.TokenSecret(key, "x"))).To(MatchError(ContainSubstring(createRefused)))
		expectIssued(key)
		bare := build.ApiKey(ns, "bare")
		create(bare)
		Expect(writeStatus(admin, bare, token.Mint("ak").Digest())).To(MatchError(ContainSubstring(statusRefused)))
		Expect(tenant.Delete(ctx, reread(secretOf(key)))).To(Succeed(), "a user can still claim a token")
	})

	It("accept the operator of an installation with another namespace and name prefix, and nobody else", func() {
		const elsewhere, prefix = "elsewhere", "acme-"
		overlay := filepath.Join(plane.Root, "bin", "overlay")
		Expect(os.MkdirAll(overlay, 0o755)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(
			"namespace: "+elsewhere+"\nnamePrefix: "+prefix+"\nresources: [../../config/default]\n"), 0o600)).To(Succeed())
		DeferCleanup(func() {
			Expect(os.RemoveAll(overlay)).To(Succeed())
			apply("apply", "-k", "config/default")
			Expect(plane.WaitGuarded(ctx, controlplane.Namespace, controlplane.ServiceAccount)).To(Succeed())
		})
		// Delete the default installation with its policies, but keep the CRDs.
		for _, each := range []string{"config/policy", "config/roles"} {
			apply("delete", "-k", each)
		}
		Expect(admin.Delete(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "apikey-operator"}})).To(Succeed())
		apply("apply", "-k", overlay)
		DeferCleanup(func() {
			out, err := kubectl("kustomize", overlay)
			Expect(err).NotTo(HaveOccurred())
			var own []string // all but the CRDs, whose deletion would delete every key
			for _, document := range strings.Split(out, "\n---\n") {
				if !strings.Contains(document, "\nkind: CustomResourceDefinition\n") {
					own = append(own, document)
				}
			}
			out, err = plane.RunKubectl(ctx, strings.Join(own, "\n---\n"), "delete", "-f", "-")
			Expect(err).NotTo(HaveOccurred(), out)
		})
		Expect(plane.WaitGuarded(ctx, elsewhere, prefix+controlplane.ServiceAccount)).To(Succeed())

		config, err := plane.As(ctx, elsewhere, prefix+controlplane.ServiceAccount)
		Expect(err).NotTo(HaveOccurred())
		o := options()
		o.Config = config
		ns := namespace()
		key := build.ApiKey(ns, "elsewhere", build.After("1h"))
		create(key)
		clock := fakeClock()
		o.Clock = clock
		c := controllers(o)
		settle(c, key)
		expectIssued(key)
		clock.SetTime(key.Status.ExpiresAt.Time)
		_, err = c.Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(exists(secretOf(key))).To(BeFalse(), "it can delete its token Secrets")

		other := build.ApiKey(ns, "other")
		create(other)
		formerly := serviceAccount(ns, "apikey-operator", true, clusterRole(ns+"-formerly", mayWriteStatus,
			rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}}))
		for _, c := range []client.Client{admin, formerly} {
			Eventually(func() error { return writeStatus(c, other, token.Mint("ak").Digest()) }).Should(MatchError(ContainSubstring(statusRefused)))
			Expect(c.Create(ctx, build.TokenSecret(other, "x"))).To(MatchError(ContainSubstring(createRefused)))
		}
		stranger, err := client.New(config, client.Options{Scheme: harness.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		Expect(stranger.Create(ctx, opaque(ns, "x"))).To(MatchError(ContainSubstring(limitRefused)))
	})

	It("guard the status of every kind in the API group", func() {
		const kind = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
			"metadata":{"name":"probes.apikey-operator.io"},
			"spec":{"group":"apikey-operator.io","scope":"Cluster","names":{"kind":"Probe","plural":"probes"},
			"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},
			"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`
		const object = `{"apiVersion":"apikey-operator.io/v1","kind":"Probe","metadata":{"name":"probe"}}`
		dir := GinkgoT().TempDir()
		for name, text := range map[string]string{"kind.json": kind, "object.json": object} {
			Expect(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)).To(Succeed())
		}
		apply("apply", "-f", filepath.Join(dir, "kind.json"))
		DeferCleanup(func() { apply("delete", "-f", filepath.Join(dir, "kind.json")) })
		Eventually(func() error {
			_, err := kubectl("apply", "-f", filepath.Join(dir, "object.json"))
			return err
		}).Should(Succeed())
		Eventually(func() string {
			out, _ := kubectl("patch", "probes.apikey-operator.io", "probe", "--subresource=status", "--type=merge", `-p={"status":{"a":"b"}}`)
			return out
		}).Should(ContainSubstring(statusRefused))
	})
})
