package feed

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// object is an ApiKey as this package decodes it. Labels, annotations and managed fields, which can be many
// times the size of the rest, are skipped.
type object struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        objectMeta            `json:"metadata"`
	Spec            v1alpha1.ApiKeySpec   `json:"spec"`
	Status          v1alpha1.ApiKeyStatus `json:"status"`
}

// objectMeta is the part of [metav1.ObjectMeta] that the index and a reflector need.
type objectMeta struct {
	Namespace         string       `json:"namespace"`
	Name              string       `json:"name"`
	UID               types.UID    `json:"uid"`
	ResourceVersion   string       `json:"resourceVersion"`
	CreationTimestamp metav1.Time  `json:"creationTimestamp"`
	DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
	Annotations       struct {
		// InitialEventsEnd marks the bookmark with which a streaming list ends.
		InitialEventsEnd string `json:"k8s.io/initial-events-end"` // metav1.InitialEventsAnnotationKey
	} `json:"annotations"`
}

// GetObjectMeta implements [metav1.ObjectMetaAccessor]. It returns a copy.
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

// key returns the ApiKey with the decoded part of its metadata.
func (o *object) key() *v1alpha1.ApiKey {
	return &v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, UID: o.Metadata.UID,
			CreationTimestamp: o.Metadata.CreationTimestamp, DeletionTimestamp: o.Metadata.DeletionTimestamp,
		},
		Spec: o.Spec, Status: o.Status,
	}
}

// DeepCopyObject implements [runtime.Object]. The copy is shallow, because this package doesn't modify
// objects.
func (o *object) DeepCopyObject() runtime.Object {
	c := *o
	return &c
}

// factList is a page of a list. A reflector that lists in pages collects all of them.
type factList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []fact `json:"items"`
}

// DeepCopyObject implements [runtime.Object]. The copy is shallow, because this package doesn't modify objects.
func (l *factList) DeepCopyObject() runtime.Object {
	c := *l
	return &c
}

// newScheme returns a scheme with the kinds as this package decodes them.
func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(v1alpha1.GroupVersion.WithKind("ApiKey"), &object{})
	scheme.AddKnownTypeWithName(v1alpha1.GroupVersion.WithKind("ApiKeyList"), &factList{})
	scheme.AddKnownTypes(v1alpha1.GroupVersion, &v1alpha1.ApiRole{}, &v1alpha1.ApiRoleList{})
	metav1.AddToGroupVersion(scheme, v1alpha1.GroupVersion)
	return scheme
}
