# `make` alone prints help.

SHELL := /usr/bin/env bash -o pipefail
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help

TOOL := go tool -modfile=$(CURDIR)/hack/tools/go.mod
# All builds use the same settings, so that they share the Go build cache. To share it when you run `go` yourself, first run
# `export CGO_ENABLED=0 GOFLAGS=-trimpath`.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(filter-out -trimpath,$(GOFLAGS)) -trimpath)

# VERSION is what the binaries report and the tag of the images. REGISTRY is the registry and repository of the images.
VERSION ?= devel
REGISTRY ?=
# SIGNING_KEY is a file with a private key, and URL where users download the archives: see docs/releases.md.
SIGNING_KEY ?=
URL ?=
LDFLAGS := -s -w -X github.com/apikey-operator/apikey-operator/internal/version.version=$(VERSION)

# `make test` runs three suites at a time. Ginkgo runs a suite in PROCS processes, each with its own control plane.
PROCS ?= 2
GINKGO := $(TOOL) ginkgo --vet=off --timeout=40m --ldflags="-s -w"
# `make lint` runs vet, so tests don't, which saves time. Tests that run other programs need -count=1: Go caches results of
# tests, but doesn't notice when those programs change.
GOTEST := go test -vet=off -timeout 40m -ldflags="-s -w"

##@ General

.PHONY: help
help: ## Print this help.
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*##/ {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use

.PHONY: demo
demo: kube-demo build ## Show the life of an API key on a local control plane, then stop.
	go build -v -o bin/ ./examples/orders
	go build -C test -v -o ../bin/local-cluster ./local && exec bin/local-cluster demo

.PHONY: run
run: kube-demo build ## Run a local control plane, the operator and the verifier until Ctrl-C.
	go build -C test -v -o ../bin/local-cluster ./local && exec bin/local-cluster run

.PHONY: build
build: ## Build the binaries into bin/.
	go build -v -ldflags "$(LDFLAGS)" -o bin/ ./cmd/...

##@ Release

.PHONY: image
image: ## Build the images for amd64 and arm64 into dist/*.tar (VERSION, REGISTRY).
	go build -C hack/release -o ../../bin/release . && bin/release -version "$(VERSION)" -registry "$(REGISTRY)" image

.PHONY: installer
installer: ## Write dist/crds.yaml with the CRDs, and dist/install.yaml with the rest and the images of REGISTRY and VERSION.
	VERSION="$(VERSION)" REGISTRY="$(REGISTRY)" hack/installer

.PHONY: push
push: ## Build the images and push them to a registry, with the chart for a VERSION such as v1.2.3 (REGISTRY=registry.example/team; SIGNING_KEY).
	go build -C hack/release -o ../../bin/release . && bin/release -version "$(VERSION)" -registry "$(REGISTRY)" -signing-key "$(SIGNING_KEY)" push

.PHONY: release
release: ## Write all files of a release into dist/VERSION: images, archives of kubectl-apikey, chart, manifests, checksums (VERSION=v1.2.3, REGISTRY; SIGNING_KEY, URL).
	go build -C hack/release -o ../../bin/release . && \
		bin/release -version "$(VERSION)" -registry "$(REGISTRY)" -signing-key "$(SIGNING_KEY)" -url "$(URL)" release

##@ Check

.PHONY: test
test: kube build bin/promtool ## Run all tests, including those on a real control plane. Suites run in parallel and print when they end.
	@$(MAKE) --no-print-directory --output-sync=target --jobs=3 test-operator test-pages test-verifier test-install test-unit
	@for gateway in nginx caddy traefik; do PATH=$$PATH:/usr/sbin:bin command -v $$gateway >/dev/null || \
		echo "SKIPPED: $$gateway is not installed, so its tests did not run (apt-get install nginx-light caddy; make traefik)"; done

.PHONY: test-unit
test-unit: ## Run the tests that need no control plane (seconds).
	$(GOTEST) $(GOTESTFLAGS) ./...
	cd hack/release && $(GOTEST) $(GOTESTFLAGS) ./...
	cd test && $(GOTEST) $(GOTESTFLAGS) -count=1 ./arrows ./kit/... ./e2e/... ./reference ./torture/...

.PHONY: test-operator
test-operator: kube build ## Run the specs of the operator (GINKGOFLAGS=--focus=...).
	cd test && $(GINKGO) --procs=$(PROCS) $(GINKGOFLAGS) ./integration

.PHONY: test-verifier
test-verifier: kube build ## Run the specs of the verifier with real gateways, of kubectl apikey, and of its page (GINKGOFLAGS=--focus=...).
	cd test && $(GINKGO) --procs=$(PROCS) $(GINKGOFLAGS) ./gateways ./cli ./page

.PHONY: test-install
test-install: kube build ## Run the specs of installing, upgrading and uninstalling.
	cd test/install && $(GINKGO) --procs=$(PROCS) $(GINKGOFLAGS) .

.PHONY: test-pages
test-pages: kube build bin/promtool ## Run the commands in docs/, and test images and alerts.
	cd test && $(GOTEST) -count=1 -p 1 -parallel 3 $(GOTESTFLAGS) ./docs ./release ./monitoring

.PHONY: e2e
e2e: node build ## Run the end-to-end tests on a cluster with one node. Needs root and the packages that .ci/run installs (E2EFLAGS).
	go build -C hack/release -o ../../bin/release .
	go build -C test -o ../bin/ ./kit/sealed ./kit/node/pause ./e2e/caller
	go -C test/install build -o "$(CURDIR)/bin/" helm.sh/helm/v4/cmd/helm
	go test -C test -v -count=1 -tags e2e -timeout 15m -exec "$(CURDIR)/bin/sealed" ./e2e $(E2EFLAGS)

.PHONY: test-versions
test-versions: kube build ## Run the specs with the label releases on the oldest and the newest supported release of Kubernetes.
	go run -v ./hack/kube oldest
	go build -C test -o ../bin/versions ./versions && exec bin/versions

# The package is built into bin/, so that it can start itself as an operator.
.PHONY: torture
torture: kube build ## Disturb keys and processes at random, and judge every answer (DURATION=1m; SEED=1, 0 draws one; PLANT).
	go build -C test -o ../bin/torture ./torture && exec bin/torture -duration "$(or $(DURATION),1m)" -seed "$(or $(SEED),1)" -plant "$(PLANT)"

# Each defect is built in on purpose, and must be found.
DEFECTS := deaf-verifier late-verifier generous-verifier hoarding-operator talkative-operator trusting-operator

.PHONY: test-scanning
test-scanning: ## Prove config/scanning with the real gitleaks (minutes, the first time).
	cd test/scanning && $(GOTEST) -count=1 .

.PHONY: test-older
test-older: kube build ## Compare verifiers of older revisions with today's, beside today's operator (BEFORE_ROTATION, BEFORE_SUSPENSION).
	hack/older-verifiers
	cd test && FOCUSED=1 OLDER_VERIFIERS="$(CURDIR)/bin/older" $(GINKGO) -v --focus='of an older revision' ./gateways

.PHONY: nightly
nightly: test-versions test-scanning test-older ## Run what takes long: other Kubernetes releases, older verifiers, all archives, long runs of some specs, torture, and each fuzz target with 4 million inputs.
	cd test && RELEASE=full $(GOTEST) -count=1 ./release
	$(MAKE) --no-print-directory torture DURATION=30m SEED=0
	for defect in $(DEFECTS); do $(MAKE) --no-print-directory torture SEED=4 PLANT=$$defect; done
	cd test && FOCUSED=1 FLOOD=10000 SPREAD=60s $(GINKGO) -v --focus='however many of them wait' ./integration
	cd test && FOCUSED=1 FLOOD=2000 LARGEST=2000 $(GINKGO) -v --focus='no two alike|reconciles only of the keys|hold up nobody else' ./integration
	cd test && FOCUSED=1 ROTATION=full $(GINKGO) -v --focus='never lets the newest token blink' ./gateways
	cd test && FOCUSED=1 ROTATING=500 $(GINKGO) -v --focus='of many keys reaches its end' ./integration
	cd test && FOCUSED=1 AWAY=5m $(GINKGO) -v --focus='Use while the API server is away' ./integration
	go build -C test -o ../bin/bench ./bench && bin/bench -only usage
	$(MAKE) --no-print-directory fuzz FUZZINPUTS=4000000

.PHONY: lint
lint: lint-text ## Run the linters, with kube-api-linter on api/.
	@for module in . hack/lint hack/release test test/install test/scanning; do echo "$$module"; (cd $$module && $(TOOL) golangci-lint-kube-api-linter run); done

# Pages of samples show first that the rules find what they are for.
.PHONY: lint-text
lint-text: bin/vale bin/actionlint ## Check the English of docs, comments and messages, and the hosted workflows: seconds.
	cd hack/lint && $(GOTEST) -count=1 .
	cd test && $(GOTEST) -count=1 ./docs -run '^Test(Prose|Pages)'
	bin/actionlint -shellcheck= -pyflakes=
	bin/vale --minAlertLevel=error $$(git ls-files --cached --others --exclude-standard -- '*.md' '*.go' \
		':!hack/lint' ':!docs/reference' ':!*zz_generated*')

.PHONY: fuzz
fuzz: ## Run each fuzz target with FUZZINPUTS inputs (default 80000, about 5 seconds).
	hack/fuzz $(or $(FUZZINPUTS),80000)

QUICKBENCH := -only=issuing,rotating,deciding,verifying,gateways,growth,listing -keys=200 -fleet=1000 -rotations=100 -rounds=1 -during=1s -largest=10000 -replayed=0

.PHONY: bench
bench: kube build ## Measure issuing and verifying beside minimal programs, and print tables (QUICK=1: five minutes; BENCHFLAGS).
	$(if $(QUICK),,go test -run '^$$' -bench NotingUse -benchtime 1x ./internal/serve)
	go build -C test -o ../bin/bench ./bench && exec bin/bench $(if $(QUICK),$(QUICKBENCH)) $(BENCHFLAGS)

.PHONY: bench-compare
bench-compare: kube build ## Measure this revision and another one in turns, and fail if this one is worse by a tenth (BASE=REV).
	hack/bench-compare "$(or $(BASE),HEAD~1)" $(BENCHFLAGS)

##@ Change

.PHONY: generate
generate: ## Regenerate the CRDs, deepcopy code, docs/reference, and the chart's copies of config/.
	$(TOOL) controller-gen object crd paths=./api/... output:crd:dir=config/crd/bases
	$(TOOL) crd-ref-docs --log-level=WARN --source-path=api --config=hack/reference/config.yaml --templates-dir=hack/reference/templates \
		--renderer=markdown --output-path=docs/reference/README.md
	hack/chart-files
	$(GOTEST) -p 1 ./cmd/apikey-operator ./cmd/apikey-verifier -run '^TestReference' -update
	$(GOTEST) ./internal/cli/commands -run '^Test(Help|Reference)' -update
	cd test && $(GOTEST) ./reference -run '^TestReference' -update

.PHONY: verify
verify: ## Fail if generated files, module files or formatting are not up to date.
	hack/verify

##@ Tools

.PHONY: kube
kube: ## Download or build etcd, the API server, its controllers and kubectl into bin/kube (minutes, once; KUBE_PREBUILT).
	@go run -v ./hack/kube controlplane

.PHONY: kube-demo
kube-demo:
	@go run -v ./hack/kube demo

.PHONY: node
node: kube ## Build the further parts of a node: controller manager, kubelet, kube-scheduler, kube-proxy and CoreDNS (minutes, once).
	@go run -v ./hack/kube node

.PHONY: traefik
traefik: ## Build Traefik into bin/, so that the tests cover it in addition to nginx and Caddy (many minutes, once).
	cd hack/traefik && go build -o ../../bin/ -ldflags "-s -w" github.com/traefik/traefik/v3/cmd/traefik

# Service discovery is most of the code, and the rules don't need it.
bin/promtool: hack/promtool/go.mod hack/promtool/go.sum
	cd hack/promtool && go build -tags remove_all_sd -ldflags '-s -w' -o ../../bin/promtool github.com/prometheus/prometheus/cmd/promtool

# Vale reads Go with tree-sitter, which is C: the one build that needs a C compiler.
bin/vale: hack/lint/go.mod hack/lint/go.sum
	cd hack/lint && CGO_ENABLED=1 go build -o ../../bin/ github.com/vale-cli/vale/v3/cmd/vale

bin/actionlint: hack/lint/go.mod hack/lint/go.sum
	cd hack/lint && go build -o ../../bin/ github.com/rhysd/actionlint/cmd/actionlint

.PHONY: clean
clean: ## Remove bin/ and dist/.
	rm -rf bin dist
