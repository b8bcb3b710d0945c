package extauthz_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

// BenchmarkCheck measures a call that is accepted, including the encoding of the response.
func BenchmarkCheck(b *testing.B) {
	world := script.NewWorld("ext_authz")
	key := world.Put("a", []string{"org.permission.customer.read"})
	s := server(world)
	m := message(script.Ask{Authorization: []string{"Bearer " + key}, Roles: []string{"org.permission.customer.read"}}, false)
	b.ReportAllocs()
	for b.Loop() {
		response, err := s.Check(b.Context(), m)
		if err != nil || response.GetOkResponse() == nil {
			b.Fatalf("not accepted: %v, error %v", response, err)
		}
		if _, err := proto.Marshal(response); err != nil {
			b.Fatal(err)
		}
	}
}
