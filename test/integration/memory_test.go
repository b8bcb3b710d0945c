package integration

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

var _ = Describe("Keys as large as the schema allows, no two alike", func() {
	start := func() (*controlplane.Operator, *controlplane.Verifier) {
		GinkgoHelper()
		operator, err := plane.StartOperator(ctx, io.Discard)
		Expect(err).NotTo(HaveOccurred())
		at, err := controlplane.FreeVerifierAddresses()
		Expect(err).NotTo(HaveOccurred())
		verifier, err := plane.StartVerifier(ctx, io.Discard, at, "--drain-delay=0s")
		Expect(err).NotTo(HaveOccurred())
		Expect(verifier.WaitHTTP(ctx, verifier.Probes+"/readyz")).To(Succeed())
		return operator, verifier
	}
	peak := func(p *controlplane.Process) int64 {
		GinkgoHelper()
		_, most, err := p.Memory()
		Expect(err).NotTo(HaveOccurred())
		return most >> 20
	}

	// LARGEST is the number of keys. The figures in docs/performance.md are from LARGEST=2000.
	It("add at most 51 KiB each to a verifier that loads them, and 102 KiB to an operator", func() {
		keys := number("LARGEST", 500)
		ns := namespace()
		operator, verifier := start()
		operatorBefore, verifierBefore := peak(operator.Process), peak(verifier.Process)
		key := build.ApiKey(ns, "worst-0", build.Worst(0))
		create(key)
		Eventually(func() v1alpha1.Reason { return reason(reread(key)) }).Should(Equal(v1alpha1.ReasonIssued))
		Expect(operator.Stop()).To(Succeed())
		Expect(verifier.Stop()).To(Succeed())

		// The other keys are copies of the issued one, with their own roles and digests.
		etcd := harness.Etcd(plane.Etcd())
		template, err := etcd.Get(ctx, harness.RegistryKey(ns, key.Name))
		Expect(err).NotTo(HaveOccurred())
		role := regexp.MustCompile(`\b0{48}[0-9a-f]{16}\b`)
		roles := role.FindAllStringIndex(string(template), -1)
		Expect(roles).To(HaveLen(3*len(key.Spec.Roles)), "in spec, annotation and managed fields")
		DeferCleanup(func() error { return etcd.Delete(ctx, harness.RegistryKey(ns, ""), harness.RegistryKey(ns, "~")) })
		values := map[string]string{}
		for number := 1; number < keys; number++ {
			name := fmt.Sprintf("worst-%d", number)
			var text strings.Builder
			end := 0
			for _, at := range roles {
				i, err := strconv.ParseUint(string(template[at[0]+48:at[1]]), 16, 64)
				Expect(err).NotTo(HaveOccurred())
				fmt.Fprintf(&text, "%s%0*x", template[end:at[0]], at[1]-at[0], number*len(key.Spec.Roles)+int(i))
				end = at[1]
			}
			text.Write(template[end:])
			values[harness.RegistryKey(ns, name)] = strings.NewReplacer(
				string(key.UID), string(uuid.NewUUID()), key.Status.Hash, token.Mint("ak").Digest().String(), key.Name, name,
			).Replace(text.String())
			if len(values) == 10 || number == keys-1 {
				Expect(etcd.Put(ctx, values)).To(Succeed())
				clear(values)
			}
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiKeyList"))
		Eventually(func() int { // with version 0, the API server's watch cache answers
			Expect(admin.List(ctx, list, client.InNamespace(ns), &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}})).To(Succeed())
			return len(list.Items)
		}).Should(Equal(keys))

		operator, verifier = start()
		operatorAdded, verifierAdded := peak(operator.Process)-operatorBefore, peak(verifier.Process)-verifierBefore
		Expect(operator.Stop()).To(Succeed())
		Expect(verifier.Stop()).To(Succeed())
		AddReportEntry("MiB added to the verifier, and to the operator", fmt.Sprint(verifierAdded, operatorAdded))
		Expect(verifierAdded).To(BeNumerically("<=", 100*keys/2000), "MiB")
		Expect(operatorAdded).To(BeNumerically("<=", 200*keys/2000), "MiB")
	})
})
