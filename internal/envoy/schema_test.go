package envoy

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The schema has every field whose content the library checks, and no other. After an update of go-control-plane, this
// test names the fields to add.
func TestSchema(t *testing.T) {
	compare(t, checkRequest, (&authv3.CheckRequest{}).ProtoReflect().Descriptor(), map[*field]bool{})
}

func compare(t *testing.T, ours message, library protoreflect.MessageDescriptor, seen map[*field]bool) {
	t.Helper()
	if len(ours) > 0 {
		if seen[&ours[0]] {
			return
		}
		seen[&ours[0]] = true
	}
	if library.Syntax() != protoreflect.Proto3 || library.ExtensionRanges().Len() > 0 || library.RequiredNumbers().Len() > 0 {
		t.Errorf("%s isn't an ordinary message of proto3, and the library decodes it in another way", library.FullName())
	}
	for number := range ours {
		if ours[number].kind != 0 && library.Fields().ByNumber(protoreflect.FieldNumber(number)) == nil {
			t.Errorf("%s has no field %d", library.FullName(), number)
		}
	}
	for i := range library.Fields().Len() {
		of := library.Fields().Get(i)
		var f field
		if int(of.Number()) < len(ours) {
			f = ours[of.Number()]
		}
		if want := kindOf(t, of); f.kind != want && (f.kind != octets || of.Kind() != protoreflect.BytesKind) {
			t.Errorf("%s is of the kind %d, want %d", of.FullName(), f.kind, want)
			continue
		}
		nested := of.Message()
		if of.IsMap() {
			nested = of.MapValue().Message()
		}
		if (nested != nil) != (f.of != nil) {
			t.Errorf("%s has a message as its value: %t, want %t", of.FullName(), f.of != nil, nested != nil)
		} else if nested != nil {
			compare(t, *f.of, nested, seen)
		}
	}
}

func kindOf(t *testing.T, f protoreflect.FieldDescriptor) kind {
	t.Helper()
	switch {
	case f.IsMap():
		value := f.MapValue().Kind()
		if f.MapKey().Kind() != protoreflect.StringKind || value != protoreflect.StringKind && value != protoreflect.MessageKind {
			t.Errorf("%s is a map of another kind than those that are read", f.FullName())
		}
		return table
	case f.Kind() == protoreflect.MessageKind:
		return submessage
	case f.Kind() == protoreflect.StringKind:
		return text
	case f.Kind() == protoreflect.GroupKind, f.IsList() && f.Kind() != protoreflect.BytesKind:
		t.Errorf("%s is a group or a list of numbers, which are not read", f.FullName())
	}
	return 0
}

// What is read comes from the fields with these names, and from no other.
func TestTaken(t *testing.T) {
	got := map[string]take{}
	taken(checkRequest, (&authv3.CheckRequest{}).ProtoReflect().Descriptor(), "", got, 0)
	for path, want := range map[string]take{
		".attributes.source.address.socket_address.address":     toAddress,
		".attributes.source.address.pipe":                       toOtherAddress,
		".attributes.source.address.envoy_internal_address":     toOtherAddress,
		".attributes.request.http.headers":                      toHeaders,
		".attributes.request.http.header_map.headers":           toRaw,
		".attributes.request.http.header_map.headers.key":       toRawName,
		".attributes.request.http.header_map.headers.value":     toRawText,
		".attributes.request.http.header_map.headers.raw_value": toRawBytes,
		".attributes.context_extensions":                        toExtensions,
	} {
		if got[path] != want {
			t.Errorf("%s goes to %d, want %d", path, got[path], want)
		}
		delete(got, path)
	}
	if len(got) > 0 {
		t.Errorf("these are read, too: %v", got)
	}
}

// taken collects the fields that are read. Their messages are not nested deeper than maxPath.
func taken(ours message, library protoreflect.MessageDescriptor, path string, into map[string]take, depth int) {
	const maxPath = 10
	if depth > maxPath {
		return
	}
	for number, f := range ours {
		of := library.Fields().ByNumber(protoreflect.FieldNumber(number))
		if of == nil {
			continue
		}
		name := path + "." + string(of.Name())
		if f.take != 0 {
			into[name] = f.take
		}
		if f.of == nil {
			continue
		}
		nested := of.Message()
		if of.IsMap() {
			nested = of.MapValue().Message()
		}
		taken(*f.of, nested, name, into, depth+1)
	}
}
