package install

import (
	_ "github.com/apikey-operator/apikey-operator/hack/controlplane"
	_ "helm.sh/helm/v4/pkg/action"
	_ "helm.sh/helm/v4/pkg/chart/v2/lint"
	_ "helm.sh/helm/v4/pkg/engine"
	_ "k8s.io/pod-security-admission/policy"
)
