package extauthz

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// headers are the headers of the request that Envoy asks about. Envoy sends either a map with lower-case
// names, in which it joins repeated headers by commas, or, with encode_raw_headers, a list of all headers.
type headers struct {
	joined map[string]string
	raw    []*corev3.HeaderValue
}

func headersOf(message *authv3.CheckRequest) headers {
	request := message.GetAttributes().GetRequest().GetHttp()
	return headers{joined: request.GetHeaders(), raw: request.GetHeaderMap().GetHeaders()}
}

// values returns the values of all headers with a name, in order. The name must be in lower case, as in
// HTTP/2 (RFC 9113, section 8.2).
func (h headers) values(name string) []string {
	var values []string
	for _, header := range h.raw {
		if header.GetKey() == name {
			if header.GetRawValue() != nil {
				values = append(values, string(header.GetRawValue()))
			} else {
				values = append(values, header.GetValue())
			}
		}
	}
	if len(values) > 0 {
		return values
	}
	if value, ok := h.joined[name]; ok {
		return []string{value}
	}
	return nil
}

// withheld returns the headers that must not reach the upstream. It omits the headers that the answer
// overwrites: Envoy removes headers after it sets others.
func (h headers) withheld(credential verify.Credential, attributes []serve.AttributeHeader) []string {
	var names []string
	add := func(name string) {
		if !serve.Withheld(name, credential) {
			return
		}
		switch name = strings.ToLower(name); name {
		case headerNamespace, headerName, headerUID, headerRoles:
		default:
			if !slices.ContainsFunc(attributes, func(a serve.AttributeHeader) bool { return a.Lower == name }) {
				names = append(names, name)
			}
		}
	}
	for name := range h.joined {
		add(name)
	}
	for _, header := range h.raw {
		add(header.GetKey())
	}
	return names
}
