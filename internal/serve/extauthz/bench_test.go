package extauthz_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

// BenchmarkCheck is the server's own part of a call that is let in: the answer, and its form on the wire.
func BenchmarkCheck(b *testing.B) {
	world := script.NewWorld("ext_authz")
	key := world.Put("a", []string{"org.permission.customer.read"})
	s := server(world)
	m := message(script.Ask{Authorization: []string{"Bearer " + key}, Roles: []string{"org.permission.customer.read"}}, false)
	b.ReportAllocs()
	for b.Loop() {
		response, err := s.Check(b.Context(), m)
		if err != nil || response.GetOkResponse() == nil {
			b.Fatal("refused", err)
		}
		if _, err := proto.Marshal(response); err != nil {
			b.Fatal(err)
		}
	}
}
