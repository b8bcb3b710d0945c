package feed

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// object is an ApiKey as it is decoded here: labels, annotations and managed fields, which may be many times the size of all the rest,
// are skipped and not made objects of.
type object struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        objectMeta            `json:"metadata"`
	Spec            v1alpha1.ApiKeySpec   `json:"spec"`
	Status          v1alpha1.ApiKeyStatus `json:"status"`
}

// objectMeta is the part of metav1.ObjectMeta that the index and a reflector ask for.
type objectMeta struct {
	Namespace         string       `json:"namespace"`
	Name              string       `json:"name"`
	UID               types.UID    `json:"uid"`
	ResourceVersion   string       `json:"resourceVersion"`
	CreationTimestamp metav1.Time  `json:"creationTimestamp"`
	DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
	Annotations       struct {
		// By it a reflector knows the bookmark that ends a first load.
		InitialEventsEnd string `json:"k8s.io/initial-events-end"` // metav1.InitialEventsAnnotationKey
	} `json:"annotations"`
}

// GetObjectMeta implements metav1.ObjectMetaAccessor. What is returned is a copy.
func (o *object) GetObjectMeta() metav1.Object {
	m := &metav1.ObjectMeta{
		Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, UID: o.Metadata.UID, ResourceVersion: o.Metadata.ResourceVersion,
		CreationTimestamp: o.Metadata.CreationTimestamp, DeletionTimestamp: o.Metadata.DeletionTimestamp,
	}
	if end := o.Metadata.Annotations.InitialEventsEnd; end != "" {
		m.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: end}
	}
	return m
}

// key is the ApiKey, with as much of its metadata as was decoded.
func (o *object) key() *v1alpha1.ApiKey {
	return &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, UID: o.Metadata.UID,
			CreationTimestamp: o.Metadata.CreationTimestamp, DeletionTimestamp: o.Metadata.DeletionTimestamp,
		},
		Spec: o.Spec, Status: o.Status,
	}
}

// DeepCopyObject implements runtime.Object. Nobody here changes an object, so that a shallow copy is as good.
func (o *object) DeepCopyObject() runtime.Object {
	c := *o
	return &c
}

// objectList is a page of objects, as the API server sends it.
type objectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []object `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *objectList) DeepCopyObject() runtime.Object {
	c := *l
	return &c
}

// factList is what remains of a page. A reflector that loads by pages gathers them all.
type factList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []fact
}

// DeepCopyObject implements runtime.Object.
func (l *factList) DeepCopyObject() runtime.Object {
	c := *l
	return &c
}

// newScheme knows the kinds as they are decoded here.
func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(v1alpha1.GroupVersion.WithKind("ApiKey"), &object{})
	scheme.AddKnownTypeWithName(v1alpha1.GroupVersion.WithKind("ApiKeyList"), &objectList{})
	scheme.AddKnownTypes(v1alpha1.GroupVersion, &v1alpha1.ApiRole{}, &v1alpha1.ApiRoleList{})
	metav1.AddToGroupVersion(scheme, v1alpha1.GroupVersion)
	return scheme
}
