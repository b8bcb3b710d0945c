package envoy_test

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/apikey-operator/apikey-operator/internal/envoy"
)

// BenchmarkRequest reads a request of ordinary size, with this package and with the library.
func BenchmarkRequest(b *testing.B) {
	headers := map[string]string{
		":method": "GET", ":path": "/v1/customers/4711?expand=orders", ":authority": "api.shop.example", ":scheme": "https",
		"user-agent": "shop-sync/2.4 (linux; go1.26)", "accept": "application/json", "accept-encoding": "gzip, deflate, br",
		"x-request-id": "5a6d9c0e-7b1b-4c53-9b0e-9d1d4f0c2e31", "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7",
		"content-type": "application/json", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
	}
	message, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Headers: headers}},
		ContextExtensions: map[string]string{"roles": "org.permission.customer.read"},
	}})
	if err != nil {
		b.Fatal(err)
	}
	request := &envoy.Request{}
	for name, read := range map[string]func() bool{
		"this package":     func() bool { return request.Read(message) },
		"go-control-plane": func() bool { return proto.Unmarshal(message, &authv3.CheckRequest{}) == nil },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !read() {
					b.Fatal("the message is not valid")
				}
			}
		})
	}
}
