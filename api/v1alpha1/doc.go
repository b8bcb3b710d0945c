// Package v1alpha1 defines the types of the apikey-operator.io API, their validation, and the condition types and
// reasons. Only types and accessors belong here, and the package imports nothing but apimachinery.
//
// +kubebuilder:object:generate=true
// +groupName=apikey-operator.io
package v1alpha1
