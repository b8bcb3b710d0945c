package serve

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// headerAttribute is the prefix of the headers that carry attributes of the API key to the upstream. The name of the
// attribute follows, as in X-Apikey-Attribute-Owner.
const headerAttribute = "X-Apikey-Attribute-"

// maxForwarded is the maximum number of attributes in headers. It is also the maximum for an ApiKey.
const maxForwarded = 16

// AttributeHeader is an attribute that the upstream receives in a header. An answer with status 200 always sets the
// header, to [verify.NoAttribute] if the key lacks the attribute: some gateways forward the client's own header if the
// answer has none.
type AttributeHeader struct {
	// Attribute is the name of the attribute.
	Attribute string
	// Header is the name of the header. Lower is the same in lower case.
	Header, Lower string
}

// NewAttributeHeaders returns the headers for the attributes with these names. It returns an error if a name is not
// valid or occurs twice, or if there are more than 16.
func NewAttributeHeaders(names []string) ([]AttributeHeader, error) {
	if len(names) > maxForwarded {
		return nil, fmt.Errorf("too many attributes: %d, must be at most %d", len(names), maxForwarded)
	}
	headers := make([]AttributeHeader, 0, len(names))
	for i, name := range names {
		if err := verify.ValidateAttributeName(name); err != nil {
			return nil, err
		}
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("%q is listed twice: remove one", name)
		}
		header := http.CanonicalHeaderKey(headerAttribute + name)
		headers = append(headers, AttributeHeader{Attribute: name, Header: header, Lower: strings.ToLower(header)})
	}
	return headers, nil
}
