// The modules with the CRDs of other projects whose objects docs/ shows. test/docs downloads the modules and installs
// the CRDs. Nothing is compiled here, so don't run `go mod tidy`: it would empty this file.
module github.com/apikey-operator/apikey-operator/hack/crds

go 1.26.0

require (
	github.com/argoproj/argo-cd/v3 v3.5.7
	github.com/cert-manager/cert-manager v1.21.2
	github.com/envoyproxy/gateway v1.9.1
	github.com/fluxcd/helm-controller v1.6.4
	github.com/fluxcd/kustomize-controller v1.9.6
	github.com/fluxcd/source-controller v1.9.6
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.3
)
