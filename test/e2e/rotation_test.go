//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// overlap is longer than the kubelet needs to update a mounted Secret, also on a busy machine.
const overlap = "3m"

// rotations is the number of rotations of the caller's keys, from the environment variable ROTATIONS. With one, the overlap of the first key
// is ended by request, because waiting for its end takes too long.
var rotations = func() int {
	if n, err := strconv.Atoi(os.Getenv("ROTATIONS")); err == nil && n > 1 {
		return n
	}
	return 1
}()

// rotateUnder requests a rotation of both of the caller's keys, waits until the caller uses the new token and the overlap has ended, and
// checks that the old token is refused then.
func rotateUnder(calling *corev1.Pod, request string) {
	GinkgoHelper()
	old, err := tokenOf(build.ApiKey(shop, "caller"))
	Expect(err).NotTo(HaveOccurred())
	var key *v1alpha1.ApiKey
	for _, name := range []string{"caller-other", "caller"} {
		key = build.ApiKey(shop, name)
		annotation := fmt.Sprintf(`{"metadata":{"annotations":{%q:"%s;overlap=%s"}}}`, v1alpha1.AnnotationRotate, request, overlap)
		Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType, []byte(annotation)))).To(Succeed())
	}
	hash := key.Status.Hash
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
		g.Expect(key.Status.Hash).NotTo(Equal(hash))
	}).Should(Succeed())
	delivered := time.Now()
	Eventually(inUseBy).WithArguments(calling).Should(Equal(key.Status.Hash))
	followed := time.Since(delivered)

	ends, how := key.RetiringToken().RetiresAt.Time, "retiresAt"
	Expect(verdict(old)).To(Equal(http.StatusOK), "within the overlap")
	if rotations == 1 {
		annotation := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationRetire, request)
		Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType, []byte(annotation)))).To(Succeed())
		ends, how = time.Now(), "the request to end the overlap"
	}
	Eventually(func(g Gomega) {
		asked := time.Now()
		code, err := verdict(old)
		g.Expect(err).NotTo(HaveOccurred())
		if rotations > 1 && code == http.StatusOK && !asked.Before(ends) {
			StopTrying("the old token is accepted after its overlap").Now()
		}
		g.Expect(code).To(Equal(http.StatusUnauthorized))
	}, time.Until(ends)+patience, 20*time.Millisecond).Should(Succeed())
	late := time.Since(ends)
	Expect(late).To(BeNumerically(">=", 0), "the old token is refused within its overlap")
	report.add("key rotated under load, with an overlap", "the pod has the new token after %.1f s; the old one is refused %.0f ms after %s",
		followed.Seconds(), late.Seconds()*1000, how)
}

// renew deletes a key and creates it again under the name of a Secret that a pod mounts.
func renew() {
	GinkgoHelper()
	old := apiKey("renewed")
	first := workload("first", "renewed", calls)
	last := func() string {
		if found := codes(first); len(found) > 0 {
			return found[len(found)-1]
		}
		return ""
	}
	Eventually(last).Should(Equal("200"))
	oldToken, err := tokenOf(old)
	Expect(err).NotTo(HaveOccurred())

	Expect(admin.Delete(ctx, old)).To(Succeed())
	Eventually(func() error { _, err := tokenOf(old); return err }).ShouldNot(Succeed())
	Eventually(last).Should(Equal("401"), "no Secret holds a valid token now")
	renewed := apiKey("renewed")
	issued(renewed)
	start := time.Now()
	newToken, err := tokenOf(renewed)
	Expect(err).NotTo(HaveOccurred())
	Expect(newToken == oldToken).To(BeFalse())

	Expect(answers(workload("second", "renewed", call))).To(Equal("200"), "a pod that starts while another one mounts the Secret")
	Eventually(last).Should(Equal("200"), "the pod that runs already")
	report.add("new key under the name of a Secret in use", "a new pod: 200; a running pod: 200 after %.1f s", time.Since(start).Seconds())
}
