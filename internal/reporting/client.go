package reporting

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

const (
	// requestTimeout limits each request.
	requestTimeout = 10 * time.Second

	// fieldManager is the manager of the fields of a report.
	fieldManager = "apikey-usage"

	accountPrefix = "system:serviceaccount:"

	// Attributes that the API server gives to the user of a token that is bound to a pod.
	podName = "authentication.kubernetes.io/pod-name"
	podUID  = "authentication.kubernetes.io/pod-uid"
)

// client sends the two kinds of requests of this package. It encodes them itself, so that a service with package guard need not
// contain the types of Kubernetes.
type client struct{ rest rest.Interface }

func newClient(config *rest.Config) (*client, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.RateLimiter, config.Timeout = -1, nil, requestTimeout
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	r, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("create a client for ApiKeyUsages: %w", err)
	}
	return &client{r}, nil
}

func (c *client) do(ctx context.Context, request *rest.Request, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	result := request.Body(text).Do(ctx)
	if err := result.Error(); err != nil {
		return err
	}
	text, err = result.Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// notAccountError says that the reporter is not a service account. Only service accounts may report.
type notAccountError struct{ user string }

func (e notAccountError) Error() string {
	return fmt.Sprintf("user %q is not a service account", e.user)
}

// identity returns the metadata of the object that this process may write: its namespace, its name and, in a pod, its owner. The
// API server says who we are, because its admission policy compares the object with that.
func (c *client) identity(ctx context.Context) (metav1.ObjectMeta, error) {
	var answer struct {
		Status struct {
			UserInfo struct {
				Username string              `json:"username"`
				Extra    map[string][]string `json:"extra"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	question := metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "SelfSubjectReview"}
	request := c.rest.Post().AbsPath("/apis/authentication.k8s.io/v1/selfsubjectreviews")
	if err := c.do(ctx, request, question, &answer); err != nil {
		return metav1.ObjectMeta{}, fmt.Errorf("create SelfSubjectReview: %w", err)
	}
	user := answer.Status.UserInfo
	account, isAccount := strings.CutPrefix(user.Username, accountPrefix)
	namespace, name, complete := strings.Cut(account, ":")
	if !isAccount || !complete {
		return metav1.ObjectMeta{}, notAccountError{user.Username}
	}
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	if pods, uids := user.Extra[podName], user.Extra[podUID]; len(pods) == 1 && len(uids) == 1 {
		meta.Name = pods[0]
		meta.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pods[0], UID: types.UID(uids[0])}}
	}
	return meta, nil
}

// apply creates or updates the object by server-side apply, which takes one request and needs no read. It returns the object as
// the API server stored it.
func (c *client) apply(ctx context.Context, report *v1alpha1.ApiKeyUsage) (*v1alpha1.ApiKeyUsage, error) {
	report.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ApiKeyUsage"}
	request := c.rest.Patch(types.ApplyPatchType).
		AbsPath("/apis", v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.Version, "namespaces", report.Namespace, "apikeyusages", report.Name).
		Param("fieldManager", fieldManager).Param("force", "true")
	answer := &v1alpha1.ApiKeyUsage{}
	if err := c.do(ctx, request, report, answer); err != nil {
		return nil, fmt.Errorf("apply ApiKeyUsage %s/%s: %w", report.Namespace, report.Name, err)
	}
	return answer, nil
}
