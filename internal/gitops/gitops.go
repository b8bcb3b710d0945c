// Package gitops tells, from an object's labels and annotations alone, which deployment tool declares it.
package gitops

import "strings"

// A mark is a label or an annotation by which a tool recognises what it has applied. An empty value means any.
type mark struct {
	tool        string
	annotation  bool
	key, value  string
	keyIsPrefix bool
}

// The marks, each with where the tool defines it.
var marks = []mark{
	// https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/
	{tool: "Argo CD", annotation: true, key: "argocd.argoproj.io/tracking-id"},
	{tool: "Argo CD", key: "argocd.argoproj.io/instance"},
	// https://fluxcd.io/flux/components/kustomize/kustomizations/ and .../helm/helmreleases/ (origin labels)
	{tool: "Flux", key: "kustomize.toolkit.fluxcd.io/name"},
	{tool: "Flux", key: "helm.toolkit.fluxcd.io/name"},
	// https://helm.sh/docs/chart_best_practices/labels/; Helm itself sets all three of what it installs.
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
	// The inventory of cli-utils, which Config Sync and kpt share.
	{tool: "Config Sync or kpt", annotation: true, key: "config.k8s.io/owning-inventory"},
	// KEP-3659: kubectl apply --prune --applyset
	{tool: "a kubectl ApplySet", key: "applyset.kubernetes.io/part-of"},
	// Argo CD's tracking label before 3.0. Helm charts and people set it as well: last, so that a surer mark names the tool.
	{tool: "Argo CD or Helm", key: "app.kubernetes.io/instance"},
}

// DeclaredBy names the tool that declares an object with these labels and annotations and would bring it back if it
// were deleted; "" if there is none.
func DeclaredBy(labels, annotations map[string]string) string {
	m, _ := first(labels, annotations)
	return m.tool
}

// Essence is as little of labels and annotations as DeclaredBy needs to say the same: one entry at most, whatever the object's owner
// wrote there.
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

// first is the mark that decides.
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
