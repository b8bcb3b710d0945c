package extauthz

import (
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/envoy"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// appendWithheld appends the headers that must not reach the upstream. It omits the headers that the answer overwrites:
// Envoy removes headers after it sets others. A name may occur twice.
func appendWithheld(names []string, request *envoy.Request, credential verify.Credential, attributes []serve.AttributeHeader) []string {
	for header := range request.HeaderNames() {
		if !serve.Withheld(string(header), credential) {
			continue
		}
		switch name := strings.ToLower(string(header)); name {
		case headerNamespace, headerName, headerUID, headerRoles:
		default:
			if !slices.ContainsFunc(attributes, func(a serve.AttributeHeader) bool { return a.Lower == name }) {
				names = append(names, name)
			}
		}
	}
	return names
}
