package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
)

// accountPatience is how long [ControlPlane.As] waits for a service account to exist.
const accountPatience = time.Minute

// As returns a configuration with a service account's token, as a pod of the account would use. The token is valid for a day. As waits up
// to a minute for the account to exist.
func (c *ControlPlane) As(ctx context.Context, namespace, serviceAccount string) (*rest.Config, error) {
	return c.as(ctx, namespace, serviceAccount, nil)
}

// AsPod is like [ControlPlane.As] for a token that is bound to an existing pod, as a kubelet requests it.
func (c *ControlPlane) AsPod(ctx context.Context, pod *corev1.Pod) (*rest.Config, error) {
	return c.as(ctx, pod.Namespace, pod.Spec.ServiceAccountName,
		&authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID})
}

func (c *ControlPlane) as(
	ctx context.Context, namespace, serviceAccount string, bound *authenticationv1.BoundObjectReference,
) (*rest.Config, error) {
	clients, err := kubernetes.NewForConfig(c.Admin)
	if err != nil {
		return nil, err
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](24 * 60 * 60), BoundObjectRef: bound}}
	var answer *authenticationv1.TokenRequest
	var missing error
	// The controller manager creates a namespace's default account shortly after the namespace.
	if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, accountPatience, true, func(ctx context.Context) (bool, error) {
		answer, err = clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, serviceAccount, request, metav1.CreateOptions{})
		if apierrors.IsNotFound(err) {
			missing = err
			return false, nil
		}
		return true, err
	}); err != nil {
		if wait.Interrupted(err) {
			err = errors.Join(err, missing)
		}
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, serviceAccount, err)
	}
	config := rest.AnonymousClientConfig(c.Admin)
	config.BearerToken = answer.Status.Token
	return config, nil
}

// AdminKubeconfig writes a kubeconfig for the admin user to a file.
func (c *ControlPlane) AdminKubeconfig(path string) error { return WriteKubeconfig(c.Admin, path) }

// KubeconfigAs writes a kubeconfig for a service account to a file; see [ControlPlane.As].
func (c *ControlPlane) KubeconfigAs(ctx context.Context, namespace, serviceAccount, path string) error {
	config, err := c.As(ctx, namespace, serviceAccount)
	if err != nil {
		return err
	}
	return WriteKubeconfig(config, path)
}

// WriteKubeconfig writes a configuration to a kubeconfig file for kubectl and the product's binaries.
func WriteKubeconfig(config *rest.Config, path string) error {
	const name = "local"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server: config.Host, CertificateAuthorityData: config.CAData,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{name: {
			ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
		}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, path)
}
