// Package gitops determines from the labels and annotations of an object which deployment tool manages it. It must not
// depend on anything else.
package gitops

import "strings"

// mark is a label or an annotation by which a tool recognizes the objects that it has applied. An empty value matches any value.
type mark struct {
	tool        string
	annotation  bool
	key, value  string
	keyIsPrefix bool
}

// marks are the known marks, each with a reference to its definition.
var marks = []mark{
	// https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/
	{tool: "Argo CD", annotation: true, key: "argocd.argoproj.io/tracking-id"},
	{tool: "Argo CD", key: "argocd.argoproj.io/instance"},
	// https://fluxcd.io/flux/components/kustomize/kustomizations/ and .../helm/helmreleases/ (origin labels)
	{tool: "Flux", key: "kustomize.toolkit.fluxcd.io/name"},
	{tool: "Flux", key: "helm.toolkit.fluxcd.io/name"},
	// https://helm.sh/docs/chart_best_practices/labels/; Helm itself sets all three on the objects that it installs.
	{tool: "Helm", annotation: true, key: "meta.helm.sh/release-name"},
	{tool: "Helm", key: "app.kubernetes.io/managed-by", value: "Helm"},
	// https://fleet.rancher.io/ (wrangler's object sets)
	{tool: "Fleet", annotation: true, key: "objectset.rio.cattle.io/id"},
	{tool: "Fleet", key: "objectset.rio.cattle.io/hash"},
	{tool: "Fleet", key: "fleet.cattle.io/", keyIsPrefix: true},
	// https://carvel.dev/kapp/docs/latest/state-namespace/
	{tool: "kapp", key: "kapp.k14s.io/app"},
	{tool: "kapp", annotation: true, key: "kapp.k14s.io/identity"},
	// https://cloud.google.com/kubernetes-engine/enterprise/config-sync/docs/reference/annotations-and-labels-config-sync
	{tool: "Config Sync", annotation: true, key: "configmanagement.gke.io/managed", value: "enabled"},
	{tool: "Config Sync", annotation: true, key: "configsync.gke.io/resource-id"},
	// The inventory of cli-utils, which both Config Sync and kpt use.
	{tool: "Config Sync or kpt", annotation: true, key: "config.k8s.io/owning-inventory"},
	// KEP-3659: kubectl apply --prune --applyset
	{tool: "a kubectl ApplySet", key: "applyset.kubernetes.io/part-of"},
	// Argo CD's tracking label before 3.0. Helm charts and people set it too, so it is last, after more reliable marks.
	{tool: "Argo CD or Helm", key: "app.kubernetes.io/instance"},
}

// DeclaredBy returns the name of the tool that manages an object with these labels and annotations, and would create the
// object again after its deletion. It returns "" if there is none.
func DeclaredBy(labels, annotations map[string]string) string {
	m, _ := first(labels, annotations)
	return m.tool
}

// Essence reduces labels and annotations to the single entry, if any, that [DeclaredBy] needs to return the same result.
func Essence(labels, annotations map[string]string) (fewLabels, fewAnnotations map[string]string) {
	m, found := first(labels, annotations)
	switch {
	case !found:
		return nil, nil
	case m.annotation:
		return nil, map[string]string{m.key: m.value}
	default:
		return map[string]string{m.key: m.value}, nil
	}
}

// first returns the mark that decides, if any.
func first(labels, annotations map[string]string) (mark, bool) {
	for _, m := range marks {
		set := labels
		if m.annotation {
			set = annotations
		}
		if m.in(set) {
			return m, true
		}
	}
	return mark{}, false
}

func (m mark) in(set map[string]string) bool {
	if m.keyIsPrefix {
		for key := range set {
			if strings.HasPrefix(key, m.key) {
				return true
			}
		}
		return false
	}
	value, ok := set[m.key]
	return ok && (m.value == "" || value == m.value)
}
