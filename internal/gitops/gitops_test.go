package gitops_test

import (
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/gitops"
)

type set = map[string]string

func TestDeclaredBy(t *testing.T) {
	for name, c := range map[string]struct {
		labels, annotations set
		want                string
	}{
		"Argo CD, tracking id": {nil, set{"argocd.argoproj.io/tracking-id": "shop:apikey-operator.io/ApiKey:a/b"}, "Argo CD"},
		"Argo CD, instance":    {set{"argocd.argoproj.io/instance": "shop"}, nil, "Argo CD"},
		"Flux, Kustomization":  {set{"kustomize.toolkit.fluxcd.io/name": "shop"}, nil, "Flux"},
		"Flux, HelmRelease":    {set{"helm.toolkit.fluxcd.io/name": "shop"}, nil, "Flux"},
		"Helm, release":        {nil, set{"meta.helm.sh/release-name": "shop"}, "Helm"},
		"Helm, managed by":     {set{"app.kubernetes.io/managed-by": "Helm"}, nil, "Helm"},
		"Fleet, object set":    {nil, set{"objectset.rio.cattle.io/id": "default-shop"}, "Fleet"},
		"Fleet, hash":          {set{"objectset.rio.cattle.io/hash": "3f1c"}, nil, "Fleet"},
		"Fleet, any label":     {set{"tier": "web", "fleet.cattle.io/bundle-id": "shop"}, nil, "Fleet"},
		"kapp, app":            {set{"kapp.k14s.io/app": "1609459200"}, nil, "kapp"},
		"kapp, identity":       {nil, set{"kapp.k14s.io/identity": "v1;a/apikey-operator.io/ApiKey/b"}, "kapp"},
		"Config Sync, managed": {nil, set{"configmanagement.gke.io/managed": "enabled"}, "Config Sync"},
		"Config Sync, id":      {nil, set{"configsync.gke.io/resource-id": "apikey-operator.io_apikey_a_b"}, "Config Sync"},
		"cli-utils inventory":  {nil, set{"config.k8s.io/owning-inventory": "shop"}, "Config Sync or kpt"},
		"ApplySet":             {set{"applyset.kubernetes.io/part-of": "applyset-x-v1"}, nil, "a kubectl ApplySet"},
		"instance alone":       {set{"app.kubernetes.io/instance": "shop"}, nil, "Argo CD or Helm"},

		"nothing":                {nil, nil, ""},
		"empty":                  {set{}, set{}, ""},
		"managed by us":          {set{"app.kubernetes.io/managed-by": "apikey-operator"}, nil, ""},
		"managed by nobody":      {set{"app.kubernetes.io/managed-by": ""}, nil, ""},
		"no longer Config Sync":  {nil, set{"configmanagement.gke.io/managed": "disabled"}, ""},
		"a setting of Argo CD":   {nil, set{"argocd.argoproj.io/sync-options": "Prune=false"}, ""},
		"a setting of Flux":      {set{"kustomize.toolkit.fluxcd.io/prune": "disabled"}, nil, ""},
		"applied by hand":        {nil, set{"kubectl.kubernetes.io/last-applied-configuration": "{}"}, ""},
		"the app's name":         {set{"app.kubernetes.io/name": "shop", "app.kubernetes.io/part-of": "shop"}, nil, ""},
		"Fleet, without a name":  {set{"fleet.cattle.io": "shop"}, nil, ""},
		"Fleet, not at start":    {set{"x.fleet.cattle.io/bundle-id": "shop"}, nil, ""},
		"label as annotation":    {nil, set{"argocd.argoproj.io/instance": "shop", "fleet.cattle.io/bundle-id": "shop"}, ""},
		"annotation as label":    {set{"meta.helm.sh/release-name": "shop", "kapp.k14s.io/identity": "v1"}, nil, ""},
		"another key's value":    {set{"managed-by": "Helm"}, set{"managed": "enabled"}, ""},
		"a key in another case":  {set{"App.kubernetes.io/Instance": "shop"}, nil, ""},
		"managed by, other case": {set{"app.kubernetes.io/managed-by": "helm"}, nil, ""},

		"Argo CD over instance": {set{"app.kubernetes.io/instance": "shop"}, set{"argocd.argoproj.io/tracking-id": "shop:a"}, "Argo CD"},
		"Flux over instance":    {set{"app.kubernetes.io/instance": "shop", "kustomize.toolkit.fluxcd.io/name": "shop"}, nil, "Flux"},
		"Helm over instance":    {set{"app.kubernetes.io/instance": "shop", "app.kubernetes.io/managed-by": "Helm"}, nil, "Helm"},
		"ApplySet over instance": {
			set{"app.kubernetes.io/instance": "shop", "applyset.kubernetes.io/part-of": "applyset-x-v1"}, nil, "a kubectl ApplySet",
		},
		"Flux over its Helm":    {set{"helm.toolkit.fluxcd.io/name": "shop"}, set{"meta.helm.sh/release-name": "shop"}, "Flux"},
		"Argo CD over its Helm": {set{"argocd.argoproj.io/instance": "shop", "app.kubernetes.io/managed-by": "Helm"}, nil, "Argo CD"},
		"instance, not Helm's":  {set{"app.kubernetes.io/instance": "shop", "app.kubernetes.io/managed-by": "tilt"}, nil, "Argo CD or Helm"},
		"Config Sync over its inventory": {
			nil, set{"config.k8s.io/owning-inventory": "shop", "configmanagement.gke.io/managed": "enabled"}, "Config Sync",
		},
	} {
		if got := gitops.DeclaredBy(c.labels, c.annotations); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		labels, annotations := gitops.Essence(c.labels, c.annotations)
		if got := gitops.DeclaredBy(labels, annotations); got != c.want || len(labels)+len(annotations) > 1 {
			t.Errorf("%s: %q by the labels %v and the annotations %v, want %q by one of them", name, got, labels, annotations, c.want)
		}
	}
}

func TestEssenceHoldsNoTextOfItsOwner(t *testing.T) {
	_, annotations := gitops.Essence(nil, set{"argocd.argoproj.io/tracking-id": "as long as may be", "note": "longer"})
	if len(annotations) != 1 || annotations["argocd.argoproj.io/tracking-id"] != "" {
		t.Errorf("%v", annotations)
	}
	labels, _ := gitops.Essence(set{"fleet.cattle.io/of-any-length": "shop"}, nil)
	if len(labels) != 1 || labels["fleet.cattle.io/"] != "" {
		t.Errorf("%v", labels)
	}
}
