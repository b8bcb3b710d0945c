package extauthz_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

// BenchmarkAnswer measures a call that is accepted, from the bytes of the request to those of the response.
func BenchmarkAnswer(b *testing.B) {
	world := script.NewWorld("ext_authz")
	key := world.Put("a", []string{"org.permission.customer.read"})
	s := server(world)
	m := message(script.Ask{Authorization: []string{"Bearer " + key}, Roles: []string{"org.permission.customer.read"}}, false)
	if response := ask(b, s, m); response.GetOkResponse() == nil {
		b.Fatalf("not accepted: %v", response)
	}
	encoded, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	var response []byte
	b.ReportAllocs()
	for b.Loop() {
		response = s.AppendAnswer(response[:0], encoded)
	}
}
