package envoy_test

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/apikey-operator/apikey-operator/internal/envoy"
)

// options returns the headers as the library's type.
func options(fields []envoy.Field) []*corev3.HeaderValueOption {
	list := make([]*corev3.HeaderValueOption, len(fields))
	for i, f := range fields {
		list[i] = &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: f.Name, Value: f.Value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	return list
}

// structure returns the fields as the library's type.
func structure(fields []envoy.Field) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, f := range fields {
		s.Fields[f.Name] = structpb.NewStringValue(f.Value)
	}
	return s
}

// same reports a difference between encoded bytes and a message of the library.
func same(t *testing.T, encoded []byte, want *authv3.CheckResponse) {
	t.Helper()
	got := &authv3.CheckResponse{}
	if err := proto.Unmarshal(encoded, got); err != nil {
		t.Fatalf("%x is not valid: %v", encoded, err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzResponse(f *testing.F) {
	f.Add("x-apikey-name", "orders", "x-apikey-roles", "a,b", "authorization", uint8(1), uint16(403))
	f.Add("", "", "a", "", "", uint8(0), uint16(0))
	f.Add("\u20ac", strings.Repeat("a", 127), strings.Repeat("b", 128), strings.Repeat("c", 70_000), "x", uint8(16), uint16(503))
	f.Fuzz(func(t *testing.T, name, value, another, other, remove string, code uint8, status uint16) {
		for _, text := range []*string{&name, &value, &another, &other, &remove} {
			*text = strings.ToValidUTF8(*text, "?")
		}
		if name == another {
			t.Skip("an entry of the metadata occurs once")
		}
		fields := []envoy.Field{{Name: name, Value: value}, {Name: another, Value: other}}
		for n := range len(fields) + 1 {
			ok := envoy.OK{Set: fields[:n], Metadata: fields[:n], Attributes: fields[n:]}
			want := &authv3.OkHttpResponse{Headers: options(fields[:n])}
			metadata := structure(fields[:n])
			if n < len(fields) {
				metadata.Fields["attributes"] = structpb.NewStructValue(structure(fields[n:]))
			}
			if n > 0 {
				ok.Remove = []string{remove, name}
				want.HeadersToRemove = ok.Remove
			}
			same(t, ok.Append(nil), &authv3.CheckResponse{
				Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: want}, DynamicMetadata: metadata,
			})
			same(t, envoy.AppendDenied(nil, uint32(code), uint32(status), fields[:n]), &authv3.CheckResponse{
				Status: &rpcstatus.Status{Code: int32(code)},
				HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
					Status: &typev3.HttpStatus{Code: typev3.StatusCode(status)}, Headers: options(fields[:n]),
				}},
			})
		}
	})
}

// A response is appended to what is there.
func TestAppend(t *testing.T) {
	ok := envoy.OK{Metadata: []envoy.Field{{Name: "name", Value: "orders"}}}
	for name, appended := range map[string]func(b []byte) []byte{
		"ok":     ok.Append,
		"denied": func(b []byte) []byte { return envoy.AppendDenied(b, 16, 401, nil) },
	} {
		if got, want := string(appended([]byte("before"))), "before"+string(appended(nil)); got != want {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
	}
}
