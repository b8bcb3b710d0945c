package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

func args(all objects, name string) []string {
	GinkgoHelper()
	return named(all, "Deployment", name, &appsv1.Deployment{}).Spec.Template.Spec.Containers[0].Args
}

// everything sets every option.
const everything = `
image: {registry: registry.example/team, tag: "1.2"}
imagePullSecrets: [{name: registry}]
namespaces: [team-a, team-b]
operator:
  replicas: 3
  tokenPrefix: acme
  ttlAfterExpired: 7d
  expiryMetricPerKey: true
  logLevel: 1
  extraArgs: [--workers=32]
  podDisruptionBudget: {maxUnavailable: 50%}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
  priorityClassName: system-cluster-critical
  nodeSelector: {disk: ssd}
  tolerations: [{key: infra, operator: Exists}]
  affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: a, operator: Exists}]}}]}}
  podLabels: {team: platform, app.kubernetes.io/name: mine}
  podAnnotations: {note: "x"}
verifier:
  tokenPrefixes: [ak, acme]
  trustedProxies: [10.0.7.0/24, "2001:db8::/64"]
  requireScope: false
  defaultRoles: [org.permission.message.read]
  forwardAttributes: [owner, cost-center]
  logAllowed: true
  tls: {enabled: true, plaintext: true}
  image: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}]
metrics:
  tls: {enabled: true}
  serviceMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}, reader: {serviceAccount: prometheus-k8s, namespace: monitoring}}
  prometheusRule: {enabled: true}
certManager: {issuerRef: {name: ca, kind: ClusterIssuer}, verifierDNSNames: [keys.example.com]}
networkPolicy:
  enabled: true
  gateways: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}]
  scrapers: [{namespaceSelector: {}}]
  egress: [{to: [{ipBlock: {cidr: 10.0.0.1/32}}], ports: [{port: 6443}]}]
`

var _ = Describe("The chart's options", Ordered, ContinueOnFailure, func() {
	var c *cluster
	BeforeAll(func() {
		c = newCluster()
		c.namespace(releaseNamespace)
		c.namespace("team-a")
		c.namespace("team-b")
		c.thirdParty("github.com/cert-manager/cert-manager", "deploy/crds/cert-manager.io_certificates.yaml")
		for _, kind := range []string{"servicemonitors", "prometheusrules"} {
			c.thirdParty("github.com/prometheus-operator/prometheus-operator",
				"example/prometheus-operator-crd/monitoring.coreos.com_"+kind+".yaml")
		}
		c.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/certificates.cert-manager.io",
			"crd/servicemonitors.monitoring.coreos.com", "crd/prometheusrules.monitoring.coreos.com")
	})

	// sound checks what must hold for every rendering: the API server accepts each object with strict validation, each name that an object refers
	// to belongs to another object, and the pods conform to the Pod Security level restricted.
	sound := func(all objects) {
		GinkgoHelper()
		for _, object := range all {
			Expect(c.Create(ctx, object.DeepCopy(), client.DryRunAll, client.FieldValidation("Strict"))).To(Succeed(), describe(object))
		}
		expectNamesResolve(all)
		evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
		Expect(err).NotTo(HaveOccurred())
		pods := 0
		for _, object := range all {
			if object.GetKind() != "Deployment" {
				continue
			}
			pods++
			pod := named(all, "Deployment", object.GetName(), &appsv1.Deployment{}).Spec.Template
			restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
			for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
				Expect(result.Allowed).To(BeTrue(), "%s: %s: %s", object.GetName(), result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		Expect(pods).To(BeNumerically(">", 0))
	}

	DescribeTable("render to what the API server accepts, and",
		func(values string, facts func(all objects)) {
			all := mustRender(values)
			sound(all)
			facts(all)
		},
		Entry("by default are config/'s", "", func(all objects) {
			Expect(args(all, "apikey-operator")).To(BeEmpty())
			Expect(args(all, "apikey-verifier")).To(BeEmpty())
			Expect(all.kinds()).To(ConsistOf("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Deployment", "PodDisruptionBudget", "Role", "RoleBinding",
				"Service", "ServiceAccount", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"))
		}),
		Entry("in production deny what is not explicitly allowed", productionValues(), func(all objects) {
			Expect(args(all, "apikey-operator")).To(ConsistOf("--require-policy", "--require-catalogue"))
			Expect(args(all, "apikey-verifier")).To(BeEmpty())
			Expect(named(all, "PodDisruptionBudget", "apikey-operator", &policyv1.PodDisruptionBudget{}).Spec.MaxUnavailable.IntValue()).To(Equal(1))
			Expect(named(all, "PodDisruptionBudget", "apikey-verifier", &policyv1.PodDisruptionBudget{}).Spec.MaxUnavailable.IntValue()).To(Equal(1))
		}),
		Entry("spread and guard against disruption what has several replicas", "operator: {replicas: 2}\nverifier: {replicas: 1}", func(all objects) {
			budgets := ofKind(all, "PodDisruptionBudget", &policyv1.PodDisruptionBudget{})
			Expect(budgets).To(HaveLen(1))
			operator := named(all, "Deployment", "apikey-operator", &appsv1.Deployment{})
			Expect(budgets[0].Spec.Selector.MatchLabels).To(Equal(operator.Spec.Selector.MatchLabels))
			spread := operator.Spec.Template.Spec.TopologySpreadConstraints
			Expect(spread).To(HaveLen(1))
			Expect(spread[0].TopologyKey).To(Equal("kubernetes.io/hostname"))
			Expect(spread[0].LabelSelector.MatchLabels).To(Equal(operator.Spec.Selector.MatchLabels))
			Expect(named(all, "Deployment", "apikey-verifier", &appsv1.Deployment{}).Spec.Template.Spec.TopologySpreadConstraints).To(BeEmpty())
		}),
		Entry("neither spread nor guard where that is switched off",
			"verifier: {replicas: 2, podDisruptionBudget: {enabled: false}, topologySpreadConstraints: []}", func(all objects) {
				Expect(all.kinds()).NotTo(ContainElement("PodDisruptionBudget"))
				Expect(named(all, "Deployment", "apikey-verifier", &appsv1.Deployment{}).Spec.Template.Spec.TopologySpreadConstraints).To(BeEmpty())
			}),
		Entry("name images that are loaded into the nodes without a registry", "image: {preloaded: true, tag: '1.2'}", func(all objects) {
			for _, name := range []string{"apikey-operator", "apikey-verifier"} {
				Expect(named(all, "Deployment", name, &appsv1.Deployment{}).Spec.Template.Spec.Containers[0].Image).To(Equal(name + ":1.2"))
			}
		}),
		Entry("keep the kinds", "crds: {enabled: true, keep: true}", func(all objects) {
			kinds := ofKind(all, "CustomResourceDefinition", &unstructured.Unstructured{})
			Expect(kinds).To(HaveLen(4))
			for _, kind := range kinds {
				Expect(kind.GetAnnotations()).To(HaveKeyWithValue("helm.sh/resource-policy", "keep"))
			}
		}),
		Entry("let the kinds go with the release", "crds: {keep: false}", func(all objects) {
			kinds := ofKind(all, "CustomResourceDefinition", &unstructured.Unstructured{})
			Expect(kinds).To(HaveLen(4))
			for _, kind := range kinds {
				Expect(kind.GetAnnotations()).NotTo(HaveKey("helm.sh/resource-policy"))
			}
		}),
		Entry("let the service account of Prometheus read the metrics",
			"metrics: {serviceMonitor: {enabled: true, reader: {serviceAccount: prometheus-k8s, namespace: monitoring}}}", func(all objects) {
				binding := named(all, "ClusterRoleBinding", "apikey-operator-metrics-reader", &rbacv1.ClusterRoleBinding{})
				Expect(binding.Subjects).To(ConsistOf(rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: "prometheus-k8s", Namespace: "monitoring"}))
				Expect(binding.RoleRef.Name).To(Equal("apikey-operator-metrics-reader"))
				role := named(all, "ClusterRole", binding.RoleRef.Name, &rbacv1.ClusterRole{})
				Expect(role.Rules).To(ConsistOf(rbacv1.PolicyRule{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}))
			}),
		Entry("without the verifier have no alert on it", "verifier: {enabled: false}\nmetrics: {prometheusRule: {enabled: true}}", func(all objects) {
			rules := field(named(all, "PrometheusRule", "apikey-operator", &unstructured.Unstructured{}), "spec", "groups")
			Expect(rules).To(ContainSubstring("ApiKeyOperatorAbsent"))
			Expect(rules).NotTo(ContainSubstring("ApiKeyVerifierAbsent"))
		}),
		Entry("may contain another chart's condition", "enabled: true", func(all objects) { Expect(all).NotTo(BeEmpty()) }),
		Entry("without the verifier contain nothing of it", "verifier: {enabled: false}", func(all objects) {
			for _, object := range all {
				Expect(object.GetName()).NotTo(ContainSubstring("apikey-verifier"))
			}
			named(all, "ClusterRole", "apikey-introspector", &rbacv1.ClusterRole{}) // Go services need it without a verifier
		}),
		Entry("for some namespaces have a Role in each, and no access to keys in the whole cluster", "namespaces: [team-a, team-b]", func(all objects) {
			Expect(args(all, "apikey-operator")).To(ConsistOf("--namespaces=team-a,team-b"))
			Expect(args(all, "apikey-verifier")).To(ConsistOf("--namespaces=team-a,team-b"))
			for _, name := range []string{"apikey-operator", "apikey-verifier"} {
				roles := map[string]bool{}
				for _, object := range all {
					if object.GetKind() == "Role" && object.GetName() == name {
						roles[object.GetNamespace()] = true
					}
				}
				Expect(roles).To(Equal(map[string]bool{"team-a": true, "team-b": true}))
				for _, rule := range named(all, "ClusterRole", name, &rbacv1.ClusterRole{}).Rules {
					for _, resource := range rule.Resources {
						Expect(resource).NotTo(BeElementOf("secrets", "apikeys/status", "apiroles/status", "events"))
						if resource == "apikeys" {
							Expect(rule.Verbs).To(ConsistOf("issue"))
						}
					}
				}
			}
		}),
		Entry("leave out what another release has", "crds: {enabled: false}\nadmissionPolicies: {install: false}\nroles: {install: false}",
			func(all objects) {
				Expect(all.kinds()).NotTo(ContainElements("CustomResourceDefinition", "ValidatingAdmissionPolicy"))
				for _, object := range all {
					Expect(object.GetName()).To(Or(HavePrefix("apikey-operator"), HavePrefix("apikey-verifier")))
				}
			}),
		Entry("accept a Secret for TLS, and then serve nothing without TLS", "verifier: {tls: {enabled: true, secretName: mine}}", func(all objects) {
			Expect(args(all, "apikey-verifier")).To(ConsistOf("--tls-cert-dir=/tls", "--https-bind-address=:9443", "--grpc-tls-bind-address=:9444",
				"--http-bind-address=0", "--grpc-bind-address=0"))
			pod := named(all, "Deployment", "apikey-verifier", &appsv1.Deployment{}).Spec.Template.Spec
			Expect(pod.Volumes).To(HaveLen(1))
			Expect(pod.Volumes[0].Secret.SecretName).To(Equal("mine"))
			Expect(pod.Containers[0].VolumeMounts).To(ConsistOf(corev1.VolumeMount{Name: "tls", MountPath: "/tls", ReadOnly: true}))
			Expect(portsOf(all, "apikey-verifier")).To(Equal(map[string]int32{"https": 9443, "tls-grpc": 9444}))
			Expect(all.kinds()).NotTo(ContainElement("Certificate"))
		}),
		Entry("ask cert-manager for certificates", "verifier: {tls: {enabled: true}}\nmetrics: {tls: {enabled: true}}\ncertManager: {issuerRef: {name: ca}}",
			func(all objects) {
				Expect(args(all, "apikey-operator")).To(ConsistOf("--metrics-cert-dir=/metrics-tls"))
				Expect(args(all, "apikey-verifier")).To(ContainElements("--metrics-cert-dir=/metrics-tls", "--tls-cert-dir=/tls"))
				for certificate, dnsName := range map[string]string{
					"apikey-verifier-tls":         "apikey-verifier.apikey-operator-system.svc",
					"apikey-operator-metrics-tls": "apikey-operator-metrics.apikey-operator-system.svc",
				} {
					object := named(all, "Certificate", certificate, &unstructured.Unstructured{})
					Expect(field(object, "spec", "dnsNames")).To(ContainSubstring(`"` + dnsName + `"`))
					Expect(field(object, "spec", "issuerRef")).To(MatchJSON(`{"group": "cert-manager.io", "kind": "Issuer", "name": "ca"}`))
					mounted := false
					for _, volume := range named(all, "Deployment", "apikey-verifier", &appsv1.Deployment{}).Spec.Template.Spec.Volumes {
						mounted = mounted || `"`+volume.Secret.SecretName+`"` == field(object, "spec", "secretName")
					}
					Expect(mounted).To(BeTrue(), certificate)
				}
			}),
		Entry("let Prometheus scrape", "metrics: {serviceMonitor: {enabled: true}}", func(all objects) {
			for _, name := range []string{"apikey-operator", "apikey-verifier"} {
				monitor := named(all, "ServiceMonitor", name, &unstructured.Unstructured{})
				Expect(field(monitor, "spec", "endpoints")).To(And(ContainSubstring(`"port":"metrics"`), ContainSubstring(`"insecureSkipVerify":true`)))
				service := named(all, "Service", name+"-metrics", &corev1.Service{})
				selector, _, err := unstructured.NestedStringMap(monitor.Object, "spec", "selector", "matchLabels")
				Expect(err).NotTo(HaveOccurred())
				for label, value := range selector {
					Expect(service.Labels).To(HaveKeyWithValue(label, value))
				}
			}
		}),
		Entry("have the alerts of config/prometheus", "metrics: {prometheusRule: {enabled: true, labels: {release: prometheus}}}", func(all objects) {
			text, err := os.ReadFile(filepath.Join(root, "config", "prometheus", "rules.yaml"))
			Expect(err).NotTo(HaveOccurred())
			// Each release's alerts select its own metrics, and not those of another release.
			const anybodys, own = `{job="apikey-`, `{namespace="apikey-operator-system",job="apikey-`
			Expect(string(text)).To(ContainSubstring(anybodys))
			want, err := parse(strings.ReplaceAll(string(text), anybodys, own))
			Expect(err).NotTo(HaveOccurred())
			have := named(all, "PrometheusRule", "apikey-operator", &unstructured.Unstructured{})
			Expect(have.Object["spec"]).To(BeComparableTo(want[0].Object["spec"]))
			Expect(have.GetLabels()).To(HaveKeyWithValue("release", "prometheus"))
		}),
		Entry("deny every peer that a NetworkPolicy does not name", "networkPolicy: {enabled: true, gateways: [{podSelector: {}}]}", func(all objects) {
			operator := named(all, "NetworkPolicy", "apikey-operator", &networkingv1.NetworkPolicy{}).Spec
			Expect(operator.Ingress).To(BeEmpty(), "nobody scrapes")
			Expect(operator.PolicyTypes).To(ConsistOf(networkingv1.PolicyTypeIngress))
			verifier := named(all, "NetworkPolicy", "apikey-verifier", &networkingv1.NetworkPolicy{}).Spec
			Expect(verifier.Ingress).To(HaveLen(1))
			Expect(verifier.Ingress[0].From).To(HaveLen(1))
			Expect(verifier.Ingress[0].Ports).To(HaveLen(2))
			Expect(verifier.Ingress[0].Ports[0].Port.String()).To(Equal("http"))
			Expect(verifier.Ingress[0].Ports[1].Port.String()).To(Equal("grpc"))
		}),
		Entry("all at once", everything, func(all objects) {
			Expect(args(all, "apikey-operator")).To(Equal([]string{
				"--namespaces=team-a,team-b", "--token-prefix=acme", "--ttl-after-expired=7d", "--expiry-metric-per-key",
				"--metrics-cert-dir=/metrics-tls", "--log-level=1", "--workers=32",
			}))
			Expect(args(all, "apikey-verifier")).To(Equal([]string{
				"--namespaces=team-a,team-b", "--token-prefixes=ak,acme", "--trusted-proxies=10.0.7.0/24,2001:db8::/64", "--require-scope=false",
				"--default-roles=org.permission.message.read", "--forward-attributes=owner,cost-center", "--tls-cert-dir=/tls", "--https-bind-address=:9443", "--grpc-tls-bind-address=:9444",
				"--metrics-cert-dir=/metrics-tls", "--log-allowed",
			}))
			operator := named(all, "Deployment", "apikey-operator", &appsv1.Deployment{})
			pod := operator.Spec.Template.Spec
			Expect(*operator.Spec.Replicas).To(BeEquivalentTo(3))
			Expect(pod.Containers[0].Image).To(Equal("registry.example/team/apikey-operator:1.2"))
			Expect(pod.ImagePullSecrets).To(ConsistOf(corev1.LocalObjectReference{Name: "registry"}))
			Expect(pod.PriorityClassName).To(Equal("system-cluster-critical"))
			Expect(pod.NodeSelector).To(HaveKeyWithValue("disk", "ssd"))
			Expect(pod.Tolerations).To(HaveLen(1))
			Expect(pod.Affinity.NodeAffinity).NotTo(BeNil())
			Expect(pod.TopologySpreadConstraints[0].LabelSelector.MatchLabels).To(Equal(operator.Spec.Selector.MatchLabels))
			Expect(operator.Spec.Template.Labels).To(And(HaveKeyWithValue("team", "platform"),
				HaveKeyWithValue("app.kubernetes.io/name", "apikey-operator")), "the labels that select pods can't be overwritten")
			Expect(operator.Spec.Template.Annotations).To(HaveKeyWithValue("note", "x"))
			verifier := named(all, "Deployment", "apikey-verifier", &appsv1.Deployment{}).Spec.Template.Spec
			Expect(verifier.Containers[0].Image).To(Equal(
				"registry.example/team/apikey-verifier@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"))
			Expect(verifier.TopologySpreadConstraints[0].LabelSelector.MatchLabels).To(Equal(map[string]string{"a": "b"}))
			Expect(portsOf(all, "apikey-verifier")).To(Equal(map[string]int32{"http": 8080, "grpc": 9001, "https": 9443, "tls-grpc": 9444}))
			network := named(all, "NetworkPolicy", "apikey-verifier", &networkingv1.NetworkPolicy{}).Spec
			Expect(network.PolicyTypes).To(ConsistOf(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress))
			Expect(network.Ingress).To(HaveLen(2))
			Expect(network.Ingress[0].Ports).To(HaveLen(4))
			Expect(network.Egress).To(HaveLen(1))
			monitor := named(all, "ServiceMonitor", "apikey-verifier", &unstructured.Unstructured{})
			Expect(monitor.GetLabels()).To(HaveKeyWithValue("release", "prometheus"))
			Expect(field(monitor, "spec", "endpoints")).To(And(ContainSubstring(`"serverName":"apikey-verifier-metrics.apikey-operator-system.svc"`),
				ContainSubstring(`"key":"ca.crt"`)))
			Expect(field(named(all, "Certificate", "apikey-verifier-tls", &unstructured.Unstructured{}), "spec", "dnsNames")).
				To(ContainSubstring("keys.example.com"))
		}),
	)

	DescribeTable("make names from the release's name, consistently",
		func(name, values, operator, verifier string) {
			all, err := render(name, releaseNamespace, values)
			Expect(err).NotTo(HaveOccurred())
			sound(all)
			named(all, "Deployment", operator, &appsv1.Deployment{})
			named(all, "Deployment", verifier, &appsv1.Deployment{})
		},
		Entry(nil, "keys", "", "keys-apikey-operator", "keys-apikey-verifier"),
		Entry(nil, "apikey-operator-blue", "", "apikey-operator-blue", "apikey-verifier-blue"),
		Entry(nil, "x", "fullnameOverride: tokens", "tokens", "tokens-verifier"),
		Entry(nil, strings.Repeat("a", 53), "", strings.Repeat("a", 37)+"-apikey-operator", strings.Repeat("a", 37)+"-apikey-verifier"),
	)

	DescribeTable("are refused if they are invalid, with the field and what is expected",
		func(values string, complaint ...string) {
			_, err := render(release, releaseNamespace, values)
			Expect(err).To(HaveOccurred())
			for _, part := range complaint {
				Expect(err.Error()).To(ContainSubstring(part))
			}
		},
		Entry(nil, "operater: {}", "additional properties 'operater' not allowed"),
		Entry(nil, "operator: {replica: 2}", "at '/operator'", "additional properties 'replica' not allowed"),
		Entry(nil, "operator: {replicas: two}", "at '/operator/replicas'", "want integer"),
		Entry(nil, "operator: {tokenPrefix: AK}", "at '/operator/tokenPrefix'", "'AK' does not match pattern"),
		Entry(nil, "operator: {ttlAfterExpired: 1w}", "at '/operator/ttlAfterExpired'", "'1w'"),
		Entry(nil, "operator: {ttlAfterExpired: ''}", "at '/operator/ttlAfterExpired'"),
		Entry(nil, "operator: {extraArgs: [workers=3]}", "at '/operator/extraArgs/0'"),
		Entry(nil, "operator: {requirePolicy: 'yes'}", "at '/operator/requirePolicy'", "want boolean"),
		Entry(nil, "operator: {podDisruptionBudget: {maxUnavailable: 0}}", "at '/operator/podDisruptionBudget/maxUnavailable'"),
		Entry(nil, "image: {tag: 1.20}", "at '/image/tag'", "want string"),
		Entry(nil, "image: {registry: 'https://registry.example'}", "at '/image/registry'"),
		Entry(nil, "verifier: {image: {digest: latest}}", "at '/verifier/image/digest'"),
		Entry(nil, "verifier: {trustedProxies: 10.0.0.0/8}", "at '/verifier/trustedProxies'", "want array"),
		Entry(nil, "verifier: {trustedProxies: [gateway]}", "at '/verifier/trustedProxies/0'"),
		Entry(nil, "verifier: {trustedProxies: [10.0.7.5]}", "at '/verifier/trustedProxies/0'"),
		Entry(nil, "verifier: {trustedProxies: [0.0.0.0/0]}", "at '/verifier/trustedProxies/0'"),
		Entry(nil, "operator: {ttlAfterExpired: 99999d}", "at '/operator/ttlAfterExpired'"),
		Entry(nil, "verifier: {tokenPrefixes: []}", "at '/verifier/tokenPrefixes'"),
		Entry(nil, "verifier: {forwardAttributes: [Owner]}", "at '/verifier/forwardAttributes/0'"),
		Entry(nil, "verifier: {forwardAttributes: [owner, owner]}", "at '/verifier/forwardAttributes'"),
		Entry(nil, "verifier: {logLevel: 11}", "at '/verifier/logLevel'"),
		Entry(nil, "namespaces: [Team_A]", "at '/namespaces/0'"),
		Entry(nil, "namespaces: [a, a]", "at '/namespaces'"),
		Entry(nil, "networkPolicy: {enabled: true, gateways: [{}]}", "at '/networkPolicy/gateways/0'"),
		Entry(nil, "crds: {install: true}", "at '/crds'", "additional properties 'install' not allowed"),
		Entry(nil, "metrics: {serviceMonitor: {reader: {namespace: Monitoring}}}", "at '/metrics/serviceMonitor/reader/namespace'"),
		// What a schema can't say.
		Entry(nil, "image: {preloaded: false}", "image.registry is empty", "registry.example/team", "image.preloaded=true"),
		Entry(nil, "metrics: {serviceMonitor: {reader: {serviceAccount: prometheus}}}", "metrics.serviceMonitor.reader", `serviceAccount="prometheus", namespace=""`),
		Entry(nil, "verifier: {tls: {enabled: true}}", "verifier.tls.enabled=true", "set verifier.tls.secretName"),
		Entry(nil, "metrics: {tls: {enabled: true}}", "metrics.tls.enabled=true", "set metrics.tls.secretName"),
		Entry(nil, "networkPolicy: {enabled: true}", "networkPolicy.gateways=[]"),
		Entry(nil, "networkPolicy: {enabled: true, gateways: [{podSelector: {}}]}\nmetrics: {serviceMonitor: {enabled: true}}", "networkPolicy.scrapers=[]"),
		Entry(nil, "operator: {tokenPrefix: acme}", "verifier.tokenPrefixes=[ak]", "must include operator.tokenPrefix (acme)"),
		Entry(nil, "fullnameOverride: apikey-verifier", "fullnameOverride=apikey-verifier"),
	)

	It("pass Helm's linter: the defaults, the values for production, and all at once", func() {
		for _, values := range []string{"", productionValues(), everything} {
			given := map[string]any{}
			Expect(yaml.UnmarshalStrict([]byte(values), &given)).To(Succeed())
			if given["image"] == nil {
				given["image"] = map[string]any{"preloaded": true}
			}
			for _, message := range lint.RunAll(chartFolder, given, releaseNamespace).Messages {
				Expect(message.Severity).To(BeNumerically("<=", support.InfoSev), message.Error())
			}
		}
	})
})

// What Helm prints after an install.
var _ = Describe("The chart's notes", func() {
	const (
		inClear  = "WARNING: tokens travel in plaintext between gateways and the verifier"
		anybody  = "WARNING: every pod of the cluster can reach the verifier"
		unscoped = "WARNING: Routes that require neither a role nor a namespace accept every valid key"
		goes     = "WARNING: `helm uninstall` deletes the CRDs"
		unbound  = "Prometheus needs the ClusterRole apikey-operator-metrics-reader"
		closed   = "{tls: {enabled: true, secretName: a}}"
	)
	DescribeTable("warn of what is open, and of nothing else",
		func(values string, warnings ...string) {
			text := notes(values)
			for _, warning := range []string{inClear, anybody, unscoped, goes, unbound} {
				if slices.Contains(warnings, warning) {
					Expect(text).To(ContainSubstring(warning))
				} else {
					Expect(text).NotTo(ContainSubstring(warning))
				}
			}
		},
		Entry("by default", "", inClear, anybody),
		Entry("with TLS", "verifier: "+closed, anybody),
		Entry("with TLS, and without", "verifier: {tls: {enabled: true, plaintext: true, secretName: a}}", inClear, anybody),
		Entry("with a NetworkPolicy", "networkPolicy: {enabled: true, gateways: [{podSelector: {}}]}", inClear),
		Entry("with both", "verifier: "+closed+"\nnetworkPolicy: {enabled: true, gateways: [{podSelector: {}}]}"),
		Entry("without the verifier", "verifier: {enabled: false}"),
		Entry("where routes are open", "verifier: {requireScope: false}", inClear, anybody, unscoped),
		Entry("where default roles close them", "verifier: {requireScope: false, defaultRoles: [a]}", inClear, anybody),
		Entry("where the kinds go, too", "verifier: {enabled: false}\ncrds: {keep: false}", goes),
		Entry("where nobody may scrape", "verifier: {enabled: false}\nmetrics: {serviceMonitor: {enabled: true}}", unbound),
		Entry("where Prometheus may",
			"verifier: {enabled: false}\nmetrics: {serviceMonitor: {enabled: true, reader: {serviceAccount: a, namespace: b}}}"),
	)
})

var _ = DescribeTable("The chart, on a release of Kubernetes,",
	func(release string, refusal string) {
		command := exec.CommandContext(ctx, helm, "template", "x", chartFolder, "--set", "image.preloaded=true", "--kube-version", release)
		out, err := command.CombinedOutput()
		if refusal == "" {
			Expect(err).NotTo(HaveOccurred(), string(out))
			Expect(string(out)).To(ContainSubstring("kind: Deployment"))
			return
		}
		Expect(err).To(HaveOccurred())
		Expect(string(out)).To(ContainSubstring(refusal))
	},
	Entry("before the oldest, is refused", "v1.31.14", "chart requires kubeVersion: >=1.32.0-0 which is incompatible with Kubernetes v1.31.14"),
	Entry("the oldest, is installed", "v1.32.0", ""),
	Entry("the oldest of a provider, is installed", "v1.32.0-gke.1000", ""),
	Entry("later, is installed", "v1.37.1", ""),
)

// portsOf are the ports of a Service, by name.
func portsOf(all objects, name string) map[string]int32 {
	GinkgoHelper()
	ports := map[string]int32{}
	for _, port := range named(all, "Service", name, &corev1.Service{}).Spec.Ports {
		ports[port.Name] = port.Port
	}
	return ports
}

// expectNamesResolve checks that every name that refers to another object of the rendering belongs to one.
func expectNamesResolve(all objects) {
	GinkgoHelper()
	names := all.names()
	for _, object := range all {
		switch object.GetKind() {
		case "ClusterRoleBinding":
			binding := named(all, object.GetKind(), object.GetName(), &rbacv1.ClusterRoleBinding{})
			Expect(names).To(ContainElement("ClusterRole /" + binding.RoleRef.Name))
			if strings.HasSuffix(binding.Name, "-metrics-reader") {
				continue // its subject is Prometheus, which is not of this installation
			}
			Expect(names).To(ContainElement("ServiceAccount " + binding.Subjects[0].Namespace + "/" + binding.Subjects[0].Name))
		case "RoleBinding":
			binding := named(all, object.GetKind(), object.GetName(), &rbacv1.RoleBinding{})
			Expect(names).To(ContainElement("Role " + object.GetNamespace() + "/" + binding.RoleRef.Name))
			Expect(names).To(ContainElement("ServiceAccount " + binding.Subjects[0].Namespace + "/" + binding.Subjects[0].Name))
		case "Deployment":
			deployment := named(all, object.GetKind(), object.GetName(), &appsv1.Deployment{})
			Expect(names).To(ContainElement("ServiceAccount " + object.GetNamespace() + "/" + deployment.Spec.Template.Spec.ServiceAccountName))
			for label, value := range deployment.Spec.Selector.MatchLabels {
				Expect(deployment.Spec.Template.Labels).To(HaveKeyWithValue(label, value))
			}
		case "ValidatingAdmissionPolicyBinding":
			Expect(names).To(ContainElement("ValidatingAdmissionPolicy /" + strings.Trim(field(object, "spec", "policyName"), `"`)))
		}
	}
}
