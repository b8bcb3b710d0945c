package cli

import (
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

var _ = Describe("The CronJob of config/samples/expiring-keys", func() {
	It("lists what expires within two weeks, with owners, and may do nothing else", func() {
		folder := filepath.Join(plane.Root, "config", "samples", "expiring-keys")
		out, err := plane.RunKubectl(ctx, "", "apply", "-k", folder)
		Expect(err).NotTo(HaveOccurred(), out)
		DeferCleanup(func() {
			out, err := plane.RunKubectl(ctx, "", "delete", "-k", folder)
			Expect(err).NotTo(HaveOccurred(), out)
		})
		job := &batchv1.CronJob{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: controlplane.Namespace, Name: "expiring-keys"}, job)).To(Succeed())
		pod := job.Spec.JobTemplate.Spec.Template.Spec
		Expect(pod.Containers).To(HaveLen(1))
		Expect(pod.Containers[0].Command).To(BeEmpty(), "the entrypoint of the image is the command")

		kubeconfig := file("")
		Expect(plane.KubeconfigAs(ctx, job.Namespace, pod.ServiceAccountName, kubeconfig)).To(Succeed())
		p := &person{kubeconfig: kubeconfig}
		run := func() result { return p.run(pod.Containers[0].Args...) }
		Eventually(func() int { return run().code }).Should(BeZero(), "the binding takes effect")

		shop, billing := namespace(), namespace()
		issue(shop, "late", in(20*24*time.Hour))
		issue(shop, "second", in((10*24+12)*time.Hour), build.Attribute("owner", "team-shop"))
		issue(billing, "first", in(30*time.Hour+30*time.Minute), build.Attribute("owner", "team-billing"))
		r := run()
		expectCode(r, 0)
		Expect(r.out).To(HavePrefix("NAMESPACE "))
		var rows [][]string // without keys of other specs
		for _, row := range cells(r.out) {
			if row[0] == shop || row[0] == billing {
				rows = append(rows, append(row[:4], row[7]))
			}
		}
		Expect(rows).To(Equal([][]string{{billing, "first", "Issued", "30h", "team-billing"}, {shop, "second", "Issued", "10d", "team-shop"}}))

		for _, args := range [][]string{
			{"describe", "first", "-n", billing}, {"revoke", "first", "-n", billing, "--yes"}, {"suspend", "first", "-n", billing}, {"roles"},
		} {
			r := p.run(args...)
			Expect(r.code).NotTo(BeZero())
			Expect(r.err).To(ContainSubstring("forbidden"))
		}
	})
})
