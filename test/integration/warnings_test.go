package integration

import (
	"context"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// warnings collects what the API server warns a client about.
type warnings struct{ texts []string }

// HandleWarningHeaderWithContext implements [rest.WarningHandlerWithContext].
func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.texts = append(w.texts, text)
}

// warned returns an administrator's client, and what it is warned about.
func warned() (client.Client, *warnings) {
	GinkgoHelper()
	heard := &warnings{}
	config := rest.CopyConfig(plane.Admin)
	config.WarningHandlerWithContext = heard
	c, err := client.New(config, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return c, heard
}

// written creates a key without the given change and then changes it, and creates another one with it. It returns the warnings of both
// writes.
func written(change build.Option) (onUpdate, onCreate []string) {
	GinkgoHelper()
	c, heard := warned()
	ns := namespace()
	key := build.ApiKey(ns, "updated")
	Expect(c.Create(ctx, key)).To(Succeed())
	Expect(heard.texts).To(BeEmpty())
	change(key)
	if key.Spec.Rotation == nil { // the rest of the spec can't be edited
		Expect(c.Update(ctx, key)).To(Succeed())
		onUpdate = heard.texts
	}
	heard.texts = nil
	Expect(c.Create(ctx, build.ApiKey(ns, "created", change))).To(Succeed())
	return onUpdate, heard.texts
}

var _ = Describe("Whoever writes an ApiKey", Label("releases"), func() {
	const short, unknown = "is short: a mounted Secret follows within about two minutes", "has no effect"
	rotate := func(value string) build.Option { return build.Annotation(v1alpha1.AnnotationRotate, value) }
	overlap := func(overlap v1alpha1.Duration) build.Option {
		return build.Rotation(v1alpha1.ApiKeyRotation{Overlap: overlap})
	}
	BeforeEach(func() {
		// The API server enforces a new policy only some time after its creation.
		c, heard := warned()
		ns := namespace()
		Eventually(func() []string {
			heard.texts = nil
			Expect(c.Create(ctx, build.ApiKey(ns, "probe", rotate("1;overlap=1s")), client.DryRunAll)).To(Succeed())
			return heard.texts
		}).ShouldNot(BeEmpty())
	})

	DescribeTable("is warned about what is valid but rarely meant", func(change build.Option, about ...string) {
		onUpdate, onCreate := written(change)
		for _, heard := range [][]string{onUpdate, onCreate} {
			if heard == nil {
				continue
			}
			Expect(heard).To(HaveLen(1))
			for _, text := range about {
				Expect(heard[0]).To(ContainSubstring(text))
			}
		}
		Expect(onCreate).NotTo(BeEmpty())
	},
		Entry("a misspelt annotation", build.Annotation("apikey-operator.io/rotat", "1"), "annotation apikey-operator.io/rotat "+unknown),
		Entry("an annotation of another case", build.Annotation("apikey-operator.io/Rotate", "1"), "annotation apikey-operator.io/Rotate "+unknown),
		Entry("a request with an overlap of five minutes", rotate("1;overlap=5m"), "an overlap of 5m "+short),
		Entry("a request with an overlap of a second less than ten minutes", rotate("1;overlap=9m59s"), "an overlap of 9m59s "+short),
		Entry("a request with an overlap in seconds", rotate("1;overlap=599s"), "an overlap of 599s "+short),
		Entry("a request with an overlap of a second", rotate("1;overlap=1s"), "an overlap of 1s "+short),
		Entry("a spec with an overlap of two minutes", overlap("2m"), "an overlap of 2m "+short),
		Entry("a spec with a short overlap, and a schedule", build.Rotation(v1alpha1.ApiKeyRotation{Every: "30d", Overlap: "30s"}),
			"an overlap of 30s "+short),
	)

	DescribeTable("is warned about nothing else", func(change build.Option) {
		onUpdate, onCreate := written(change)
		Expect(append(onUpdate, onCreate...)).To(BeEmpty())
	},
		Entry("all annotations that have an effect", func(key *v1alpha1.ApiKey) {
			for _, name := range []string{v1alpha1.AnnotationRotate, v1alpha1.AnnotationRetire, v1alpha1.AnnotationKeep} {
				build.Annotation(name, "true")(key)
			}
		}),
		Entry("an annotation of somebody else", build.Annotation("example.com/rotat", "1")),
		Entry("a request that ends the token at once", rotate("1;overlap=0s")),
		Entry("a request that ends the token at once, in minutes", rotate("1;overlap=00m0s")),
		Entry("a request with an overlap of ten minutes", rotate("1;overlap=10m")),
		Entry("a request with an overlap of 600 seconds", rotate("1;overlap=600s")),
		Entry("a request with an overlap of 9 minutes and 60 seconds", rotate("1;overlap=9m60s")),
		Entry("a request with an overlap of an hour and five seconds", rotate("1;overlap=1h5s")),
		Entry("a request with an overlap of days", rotate("1;overlap=2d")),
		Entry("a request that the operator will refuse", rotate("1;overlap=soon")),
		Entry("a request that looks like an overlap", rotate("overlap=1m")),
		Entry("a spec that ends the token at once", overlap("0s")),
		Entry("a spec with an overlap of a day", overlap("24h")),
		Entry("a spec with a schedule alone", build.Rotation(v1alpha1.ApiKeyRotation{Every: "30d"})),
		Entry("a request with a long overlap, where that of the spec is short", func(key *v1alpha1.ApiKey) {
			rotate("1;overlap=1h")(key)
			overlap("1m")(key)
		}),
	)

	It("is not warned about the samples", func() {
		samples, err := filepath.Glob(filepath.Join(plane.Root, "config", "samples", "*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		samples = append(samples, filepath.Join(plane.Root, "config", "samples", "quickstart", "apikey.yaml"))
		seen := 0
		for _, sample := range samples {
			if strings.HasSuffix(sample, "kustomization.yaml") {
				continue
			}
			out, err := kubectl("apply", "--dry-run=server", "-n", namespace(), "-f", sample)
			Expect(err).NotTo(HaveOccurred(), out)
			Expect(out).NotTo(ContainSubstring("Warning:"))
			seen++
		}
		Expect(seen).To(BeNumerically(">=", 4))
	})
})
