package v1alpha1

import (
	"encoding/json"
	"time"
)

// ReportedAt returns when the API server received the report: the latest time in metadata.managedFields of a manager that wrote
// it. It returns the creation time if there is none. A client can set these times, so callers must limit them to the present.
func (u *ApiKeyUsage) ReportedAt() time.Time {
	at := u.CreationTimestamp.Time
	for _, entry := range u.ManagedFields {
		var owned struct {
			Report json.RawMessage `json:"f:report"`
		}
		if entry.FieldsV1 == nil || entry.Time == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &owned) != nil || owned.Report == nil {
			continue
		}
		if entry.Time.After(at) {
			at = entry.Time.Time
		}
	}
	return at
}

// HasPod reports whether the object belongs to a pod, with which the garbage collector deletes it.
func (u *ApiKeyUsage) HasPod() bool {
	for _, owner := range u.OwnerReferences {
		if owner.APIVersion == "v1" && owner.Kind == "Pod" {
			return true
		}
	}
	return false
}
