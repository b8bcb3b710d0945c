// Package keys is what a person does with API keys, with the person's own rights: ask for one, receive its token, list, find, suspend and
// revoke. It neither prints nor asks questions, and it knows no command line, so that every user interface can use it.
//
// Only secrets.go reads a token Secret.
package keys

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// FieldManager is the name under which the API server records what this package writes. Flux undoes changes of managers whose
// names start with kubectl.
const FieldManager = "apikey-cli"

// pageSize is the number of objects that one request lists.
const pageSize = 500

// Cluster reads and writes objects with the rights of a user. It has no caches.
type Cluster struct {
	client client.WithWatch
	secret secretClient
}

// Connect returns a [Cluster] for a configuration. It sends no request.
func Connect(config *rest.Config) (*Cluster, error) {
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("create a client: %w", err)
	}
	c, err := client.NewWithWatch(config, client.Options{
		HTTPClient: http, Scheme: Scheme(), Mapper: mapper(), Log: logr.Discard(),
		FieldOwner: FieldManager, FieldValidation: metav1.FieldValidationStrict,
	})
	if err != nil {
		return nil, fmt.Errorf("create a client: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("determine the address of the API server: %w", err)
	}
	return &Cluster{client: c, secret: secretClient{http: http, base: base}}, nil
}

// Client returns the client that the cluster uses. It must not read or write Secrets: it logs them at -v=8.
func (c *Cluster) Client() client.Client { return c.client }

// Scheme returns a scheme with the kinds that this package uses.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// mapper returns a mapper of the kinds that this package uses. A mapper that discovers them would send several requests first.
func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	add := func(version schema.GroupVersion, kind, plural string, scope meta.RESTScope) {
		m.AddSpecific(version.WithKind(kind), version.WithResource(plural), version.WithResource(strings.ToLower(kind)), scope)
	}
	add(v1alpha1.GroupVersion, "ApiKey", "apikeys", meta.RESTScopeNamespace)
	add(v1alpha1.GroupVersion, "ApiRole", "apiroles", meta.RESTScopeRoot)
	add(v1alpha1.GroupVersion, "ApiKeyPolicy", "apikeypolicies", meta.RESTScopeRoot)
	add(corev1.SchemeGroupVersion, "Event", "events", meta.RESTScopeNamespace)
	add(corev1.SchemeGroupVersion, "Namespace", "namespaces", meta.RESTScopeRoot)
	add(corev1.SchemeGroupVersion, "Pod", "pods", meta.RESTScopeNamespace)
	add(coordinationv1.SchemeGroupVersion, "Lease", "leases", meta.RESTScopeNamespace)
	add(appsv1.SchemeGroupVersion, "Deployment", "deployments", meta.RESTScopeNamespace)
	add(admissionv1.SchemeGroupVersion, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", meta.RESTScopeRoot)
	add(authorizationv1.SchemeGroupVersion, "SelfSubjectAccessReview", "selfsubjectaccessreviews", meta.RESTScopeRoot)
	return m
}

// EachPage calls visit with each page of the ApiKeys of a namespace, or of all namespaces if it is empty. The next page overwrites keys.
// selector restricts the keys by their labels; "" means all.
func (c *Cluster) EachPage(ctx context.Context, namespace, selector string, visit func(keys []v1alpha1.ApiKey) error) error {
	options := &client.ListOptions{Namespace: namespace, Limit: pageSize, Raw: &metav1.ListOptions{LabelSelector: selector}}
	for {
		page := &v1alpha1.ApiKeyList{}
		if err := c.client.List(ctx, page, options); err != nil {
			return err
		}
		if err := visit(page.Items); err != nil {
			return err
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return nil
		}
	}
}

// Get returns an ApiKey.
func (c *Cluster) Get(ctx context.Context, namespace, name string) (*v1alpha1.ApiKey, error) {
	key := &v1alpha1.ApiKey{}
	err := c.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, key)
	return withKind(key), err
}

// Roles returns the role catalogue.
func (c *Cluster) Roles(ctx context.Context) ([]v1alpha1.ApiRole, error) {
	list := &v1alpha1.ApiRoleList{}
	err := c.client.List(ctx, list)
	return list.Items, err
}

// Namespaces returns the names of all namespaces.
func (c *Cluster) Namespaces(ctx context.Context) ([]string, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := c.client.List(ctx, list); err != nil {
		return nil, err
	}
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
	}
	return names, nil
}
