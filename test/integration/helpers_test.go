package integration

import (
	"context"

	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// frozen is a client whose cache has stopped: it shows one ApiKey as it was.
type frozen struct {
	client.Client
	view *v1alpha1.ApiKey
}

func (f frozen) Get(_ context.Context, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	f.view.DeepCopyInto(object.(*v1alpha1.ApiKey))
	return nil
}

func inNamespace(name string) client.ListOption { return client.InNamespace(name) }

func zero() *resource.Quantity { return resource.NewQuantity(0, resource.DecimalSI) }
