package extauthz

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// headers are those of the request that Envoy asks about. Envoy sends them as a map with lower-case names and repeated headers
// joined by commas, or, if it is told to (encode_raw_headers), as a list of all of them.
type headers struct {
	joined map[string]string
	raw    []*corev3.HeaderValue
}

func headersOf(message *authv3.CheckRequest) headers {
	request := message.GetAttributes().GetRequest().GetHttp()
	return headers{joined: request.GetHeaders(), raw: request.GetHeaderMap().GetHeaders()}
}

// values are those of all headers of a name, in lower case as HTTP/2 has them (RFC 9113, section 8.2), in order.
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

// withheld are the headers that an upstream must not see, but for those that are overwritten: Envoy removes headers after it has set
// others, so that these must not be named.
func (h headers) withheld(credential verify.Credential) []string {
	var names []string
	add := func(name string) {
		if !serve.Withheld(name, credential) {
			return
		}
		switch name = strings.ToLower(name); name {
		case headerNamespace, headerName, headerUID, headerRoles:
		default:
			names = append(names, name)
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
