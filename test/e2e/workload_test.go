//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/e2e/tally"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// call calls the quick start's API once, as its client does, and prints the status.
const call = `printf 'header = "Authorization: Bearer %s"\n' "$(cat /apikey/token)" |
	curl --config - --silent --output /dev/null --write-out '%{http_code}\n' --max-time 5 http://orders/ || true`

// calls does the same twice a second.
const calls = "while :; do " + call + "; sleep 0.5; done"

// workload runs a script in a pod like the quick start's client, with a token Secret mounted.
func workload(name, secret, script string) *corev1.Pod {
	GinkgoHelper()
	pod := clientPod(name)
	pod.Spec.Containers[0].Command = []string{"/bin/sh", "-c", script}
	pod.Spec.Volumes[0].Secret.SecretName = secret
	Expect(admin.Create(ctx, pod)).To(Succeed())
	return pod
}

// clientPod returns a pod like the quick start's client, to be changed and created. It is not restarted when it ends.
func clientPod(name string) *corev1.Pod {
	GinkgoHelper()
	deployment := &appsv1.Deployment{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: shop, Name: "client"}, deployment)).To(Succeed())
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name}, Spec: deployment.Spec.Template.Spec}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	return pod
}

// codes returns the statuses that a workload has printed so far.
func codes(pod *corev1.Pod) []string {
	text, err := clients.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil {
		return nil // the pod has not started
	}
	return strings.Fields(string(text))
}

// answers waits until a workload has ended, and returns the one status that it printed.
func answers(pod *corev1.Pod) string {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		g.Expect(pod.Status.Phase).To(Equal(corev1.PodSucceeded))
	}).Should(Succeed())
	found := codes(pod)
	Expect(found).To(HaveLen(1))
	return found[0]
}

// apiKey creates a key of the shop for org.permission.order.read.
func apiKey(name string, options ...build.Option) *v1alpha1.ApiKey {
	GinkgoHelper()
	key := build.ApiKey(shop, name, append([]build.Option{build.Roles("org.permission.order.read")}, options...)...)
	Expect(admin.Create(ctx, key)).To(Succeed())
	return key
}

func issued(key *v1alpha1.ApiKey) {
	GinkgoHelper()
	Eventually(func() bool { return isIssued(key) }).Should(BeTrue())
}

func isIssued(key *v1alpha1.ApiKey) bool {
	return admin.Get(ctx, client.ObjectKeyFromObject(key), key) == nil && meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)
}

// tokenOf returns the token in a key's token Secret.
func tokenOf(key *v1alpha1.ApiKey) (string, error) {
	secret := &corev1.Secret{}
	err := admin.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}, secret)
	return string(secret.Data[key.SecretKey()]), err
}

// matches reports whether a token has a key's digest.
func matches(text string, key *v1alpha1.ApiKey) bool {
	parsed, err := token.Parse(text)
	return err == nil && parsed.Digest().String() == key.Status.Hash
}

// verdict returns the status with which one of the verifier's pods answers for a token.
func verdict(text string) (int, error) {
	pods := pods(system, "apikey-verifier")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pods[0].Status.PodIP+":8080/auth?role=org.permission.order.read", nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+text)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// pods returns the pods of a Deployment that are ready and not being deleted.
func pods(namespace, deployment string) []corev1.Pod {
	GinkgoHelper()
	list := &corev1.PodList{}
	label := "app.kubernetes.io/name"
	if namespace == shop {
		label = "app"
	}
	Expect(admin.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{label: deployment})).To(Succeed())
	var found []corev1.Pod
	for _, pod := range list.Items {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp.IsZero() {
				found = append(found, pod)
			}
		}
	}
	return found
}

// kill kills the process of a pod with SIGKILL, as the kernel does when memory runs out.
func kill(pod corev1.Pod, binary string) {
	GinkgoHelper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	Expect(err).NotTo(HaveOccurred())
	killed := 0
	for _, file := range files {
		groups, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(groups, []byte("pod"+string(pod.UID))) {
			continue // the process has exited, or belongs to another pod
		}
		dir := filepath.Dir(file)
		if path, err := os.Readlink(filepath.Join(dir, "exe")); err != nil || filepath.Base(path) != binary {
			continue // the process that keeps the pod's namespaces
		}
		id, err := strconv.Atoi(filepath.Base(dir))
		Expect(err).NotTo(HaveOccurred())
		process, err := os.FindProcess(id)
		Expect(err).NotTo(HaveOccurred())
		Expect(process.Kill()).To(Succeed())
		killed++
	}
	Expect(killed).To(Equal(1), "processes of %s", pod.Name)
}

// startCaller runs test/e2e/caller in a pod, with one key that is allowed and one that has another role.
func startCaller() *corev1.Pod {
	GinkgoHelper()
	const other = "caller-other"
	issued(apiKey("caller"))
	issued(apiKey(other, build.Roles("orders.write")))
	pod := clientPod("caller")
	container := &pod.Spec.Containers[0]
	container.Image, container.Command = images["caller"], nil
	container.Args = []string{"-url=http://orders/", "-allowed=/apikey/token", "-refused=/" + other + "/token"}
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: other, MountPath: "/" + other, ReadOnly: true})
	pod.Spec.Volumes[0].Secret.SecretName = "caller"
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: other, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: other}},
	})
	Expect(admin.Create(ctx, pod)).To(Succeed())
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		now, err := counts(pod)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(now.Sent).To(BeNumerically(">", 10))
	}).Should(Succeed())
	return pod
}

// counts returns the caller's counts.
func counts(pod *corev1.Pod) (t tally.Tally, err error) {
	text, err := askCaller(pod, "/counts")
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(text, &t)
}

// inUseBy returns the digest of the token that was allowed last of those that the caller read from its mounted Secret.
func inUseBy(pod *corev1.Pod) (string, error) {
	text, err := askCaller(pod, "/digest")
	return string(text), err
}

func askCaller(pod *corev1.Pod, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pod.Status.PodIP+":8000"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	return io.ReadAll(response.Body)
}
