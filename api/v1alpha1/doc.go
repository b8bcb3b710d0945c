// Package v1alpha1 holds the types of the apikey-operator.io API, their validation markers, and the
// condition and reason constants; it imports apimachinery and nothing else.
//
// +kubebuilder:object:generate=true
// +groupName=apikey-operator.io
package v1alpha1
