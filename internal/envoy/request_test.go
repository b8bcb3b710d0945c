package envoy_test

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikey-operator/apikey-operator/internal/envoy"
)

// names are the names of headers that are looked up.
var names = []string{"authorization", "x-api-key", "a", ""}

// compare reads a message with the library and with this package, and reports every difference.
func compare(t *testing.T, request *envoy.Request, message []byte) (valid bool) {
	t.Helper()
	library := &authv3.CheckRequest{}
	err := proto.Unmarshal(message, library)
	if got := request.Read(message); got != (err == nil) {
		t.Fatalf("%x is read: %t, but the library says %v", message, got, err)
	}
	if err != nil {
		library = &authv3.CheckRequest{} // nothing may be left of the message
	}
	if got, want := string(request.Address()), library.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress(); got != want {
		t.Errorf("the address of %x is %q, want %q", message, got, want)
	}
	http := library.GetAttributes().GetRequest().GetHttp()
	allNames := map[string]bool{}
	for name := range http.GetHeaders() {
		allNames[name] = true
	}
	for _, header := range http.GetHeaderMap().GetHeaders() {
		allNames[header.GetKey()] = true
	}
	gotNames := map[string]bool{}
	for name := range request.HeaderNames() {
		gotNames[string(name)] = true
	}
	if !maps.Equal(gotNames, allNames) {
		t.Errorf("%x has headers with the names %v, want %v", message, gotNames, allNames)
	}
	for _, name := range slices.Concat(names, slices.Collect(maps.Keys(allNames))) {
		if got, want := request.AppendValues(nil, name), valuesOf(http, name); !slices.Equal(got, want) {
			t.Errorf("the header %q of %x has the values %q, want %q", name, message, got, want)
		}
	}
	extensions := map[string]string{}
	for name, value := range request.Extensions() {
		extensions[string(name)] = string(value)
	}
	if want := library.GetAttributes().GetContextExtensions(); !maps.Equal(extensions, want) {
		t.Errorf("%x has the extensions %q, want %q", message, extensions, want)
	}
	return err == nil
}

// valuesOf returns the values of a header as [envoy.Request.AppendValues] must.
func valuesOf(http *authv3.AttributeContext_HttpRequest, name string) []string {
	var values []string
	for _, header := range http.GetHeaderMap().GetHeaders() {
		switch {
		case header.GetKey() != name:
		case header.GetRawValue() != nil:
			values = append(values, string(header.GetRawValue()))
		default:
			values = append(values, header.GetValue())
		}
	}
	if value, ok := http.GetHeaders()[name]; ok && values == nil {
		return []string{value}
	}
	return values
}

func FuzzRequest(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(generate(seed))
	}
	request := &envoy.Request{}
	f.Fuzz(func(t *testing.T, message []byte) { compare(t, request, message) })
}

// Random messages are nearly valid, so that they reach all fields.
func TestRandomMessages(t *testing.T) {
	const count = 10_000
	request, valid := &envoy.Request{}, 0
	for seed := range uint64(count) {
		if compare(t, request, generate(seed)) {
			valid++
		}
		if t.Failed() {
			t.Fatalf("with the seed %d", seed)
		}
	}
	if valid < count/5 || valid > count*4/5 {
		t.Errorf("%d of %d messages are valid, want about half of them", valid, count)
	}
}

// generator writes random messages: with repeated and merged fields, unknown ones, groups, wrong wire types, overlong
// varints, text that isn't UTF-8, and cut short.
type generator struct{ *rand.Rand }

func generate(seed uint64) []byte {
	g := generator{rand.New(rand.NewPCG(seed, 0))}
	message := g.message((&authv3.CheckRequest{}).ProtoReflect().Descriptor(), 0)
	if g.one(20) {
		message = message[:g.IntN(len(message)+1)]
	}
	if len(message) > 0 && g.one(20) {
		message[g.IntN(len(message))] ^= byte(1 << g.IntN(8))
	}
	return message
}

// one is true once in n times.
func (g generator) one(n int) bool { return g.IntN(n) == 0 }

func (g generator) varint(b []byte, v uint64) []byte {
	b = protowire.AppendVarint(b, v)
	if g.one(100) { // longer than needed, or too long
		b[len(b)-1] |= 0x80
		b = append(b, bytes.Repeat([]byte{0x80}, g.IntN(10))...)
		b = append(b, byte(g.IntN(2))) //nolint:gosec // 0 or 1
	}
	return b
}

func (g generator) tag(b []byte, number protowire.Number, wireType protowire.Type) []byte {
	return g.varint(b, protowire.EncodeTag(number, wireType))
}

func (g generator) bytes(b, value []byte) []byte {
	length := uint64(len(value))
	if g.one(500) {
		length += g.Uint64N(3)
	}
	return append(g.varint(b, length), value...)
}

// text returns a text that is a name that matters, or is odd.
func (g generator) text() []byte {
	texts := append([]string{"roles", "10.0.0.1", "Bearer x", "\u20ac", "", strings.Repeat("long", 40)}, names...)
	if g.one(200) {
		return []byte("\xff\xc0")
	}
	return []byte(texts[g.IntN(len(texts))])
}

func (g generator) message(of protoreflect.MessageDescriptor, depth int) []byte {
	const maxDepth = 12
	if depth > maxDepth {
		return nil
	}
	var b []byte
	fields := of.Fields()
	for range g.IntN(5) {
		if g.one(40) {
			b = g.odd(b)
			continue
		}
		f := fields.Get(g.IntN(fields.Len()))
		if depth < 4 && g.one(2) { // most of what is read is in the last of these
			f = fields.Get(min(2, fields.Len()-1))
		}
		b = g.field(b, f, depth)
	}
	return b
}

func (g generator) field(b []byte, f protoreflect.FieldDescriptor, depth int) []byte {
	if g.one(150) { // another wire type
		return g.value(b, f.Number())
	}
	switch f.Kind() {
	case protoreflect.MessageKind:
		return g.bytes(g.tag(b, f.Number(), protowire.BytesType), g.message(f.Message(), depth+1))
	case protoreflect.StringKind, protoreflect.BytesKind:
		return g.bytes(g.tag(b, f.Number(), protowire.BytesType), g.text())
	case protoreflect.DoubleKind:
		return protowire.AppendFixed64(g.tag(b, f.Number(), protowire.Fixed64Type), g.Uint64())
	default:
		return g.varint(g.tag(b, f.Number(), protowire.VarintType), g.Uint64())
	}
}

// odd appends a field that no message has, or whose number is not valid.
func (g generator) odd(b []byte) []byte {
	numbers := []protowire.Number{0, 14, 15, 16, 2047, protowire.MaxValidNumber, protowire.MaxValidNumber + 1, -1}
	return g.value(b, numbers[g.IntN(len(numbers))])
}

// value appends a field with any wire type.
func (g generator) value(b []byte, number protowire.Number) []byte {
	wireType := protowire.Type(g.IntN(8)) //nolint:gosec // 0 to 7
	b = g.tag(b, number, wireType)
	switch wireType {
	case protowire.VarintType:
		return g.varint(b, g.Uint64())
	case protowire.Fixed32Type:
		return protowire.AppendFixed32(b, g.Uint32())
	case protowire.Fixed64Type:
		return protowire.AppendFixed64(b, g.Uint64())
	case protowire.BytesType:
		return g.bytes(b, g.text())
	case protowire.StartGroupType:
		b = g.value(b, 7)
		return g.tag(b, number+protowire.Number(g.IntN(10)/9), protowire.EndGroupType) //nolint:gosec // 0 or 1
	default:
		return b
	}
}

// The library limits how deeply messages are nested, and counts entries of maps as messages.
func TestNesting(t *testing.T) {
	request := &envoy.Request{}
	const around = 3
	key := field(1, []byte("a"))
	for name, level := range map[string][]part{
		"structs": {{1, nil}, {2, key}, {5, nil}},                     // fields of Struct, the value of an entry, a Struct again
		"lists":   {{1, nil}, {2, key}, {6, nil}, {1, nil}, {5, nil}}, // the same with a list in between
	} {
		for _, innermost := range [][]byte{nil, field(1, nil), {1<<3 | byte(protowire.VarintType), 1}} {
			limit, valid := protowire.DefaultRecursionLimit/len(level), 0
			for levels := limit - around; levels < limit+around; levels++ {
				outermost := []part{{1, nil}, {11, nil}, {1, nil}, {2, key}}
				if compare(t, request, nested(slices.Concat(outermost, slices.Repeat(level, levels)), innermost)) {
					valid++
				}
			}
			if valid == 0 || valid == 2*around {
				t.Errorf("%s: %d of %d messages are valid, so that no limit was met", name, valid, 2*around)
			}
		}
	}
	for levels := protowire.DefaultRecursionLimit - around; levels <= protowire.DefaultRecursionLimit+around; levels++ {
		open, end := protowire.AppendTag(nil, 99, protowire.StartGroupType), protowire.AppendTag(nil, 99, protowire.EndGroupType)
		compare(t, request, append(bytes.Repeat(open, levels), bytes.Repeat(end, levels)...))
	}
}

// part is a field that has another message as its content, and what comes before it in the same message.
type part struct {
	number protowire.Number
	before []byte
}

// nested returns a message in which each part is the content of the one before.
func nested(parts []part, innermost []byte) []byte {
	heads, length := make([][]byte, len(parts)), len(innermost)
	for i, p := range slices.Backward(parts) {
		head := protowire.AppendTag(slices.Clone(p.before), p.number, protowire.BytesType)
		heads[i] = protowire.AppendVarint(head, uint64(length)) //nolint:gosec // never negative
		length += len(heads[i])
	}
	return append(slices.Concat(heads...), innermost...)
}

func field(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func entry(key string, value []byte) []byte { return append(field(1, []byte(key)), field(2, value)...) }

// These are the rules that random messages may miss.
func TestMerging(t *testing.T) {
	http := func(fields ...[]byte) []byte { return field(1, field(4, field(2, slices.Concat(fields...)))) }
	header := func(name, value string) []byte { return field(3, entry(name, []byte(value))) }
	raw := func(fields ...[]byte) []byte { return field(13, field(1, slices.Concat(fields...))) }
	key, text, value := field(1, []byte("a")), field(2, []byte("text")), field(3, []byte("raw"))
	address := func(fields ...[]byte) []byte { return field(1, field(1, field(1, slices.Concat(fields...)))) }
	socket, pipe := field(1, field(2, []byte("10.0.0.1"))), field(2, field(1, []byte("/run")))
	for name, message := range map[string][]byte{
		"the same header twice":                    http(header("a", "1"), header("a", "2")),
		"in two parts":                             slices.Concat(http(header("a", "1")), http(header("b", "2"), header("a", "3"))),
		"an entry with two keys":                   http(field(3, slices.Concat(key, field(1, []byte("b")), text, field(2, []byte("2"))))),
		"an entry without a key":                   http(field(3, text)),
		"an empty entry":                           http(field(3, nil)),
		"an entry whose value is a number":         http(field(3, slices.Concat(key, []byte{2 << 3, 7}))),
		"raw and text":                             http(raw(key, text, value)),
		"raw, and empty":                           http(raw(key, text, field(3, nil))),
		"text only":                                http(raw(key, text)),
		"raw twice":                                http(raw(key, value, field(3, []byte("last")))),
		"raw header twice, and in the map":         http(raw(key, value), header("a", "1"), raw(key, text)),
		"in the map, and another raw":              http(header("a", "1"), raw(field(1, []byte("b")), value)),
		"an address":                               field(1, address(socket)),
		"an address, then a pipe":                  field(1, address(socket, pipe)),
		"a pipe, then an address":                  field(1, address(pipe, socket)),
		"an address, then one without":             field(1, address(socket, field(1, nil))),
		"an address, a pipe and one without":       field(1, address(socket, pipe, field(1, nil))),
		"an address, then a pipe that is a number": field(1, address(socket, []byte{2 << 3, 7})),
		"an address of the destination":            field(1, field(2, field(1, socket))),
		"of source and destination":                field(1, slices.Concat(address(socket), field(2, field(1, pipe)))),
	} {
		t.Run(name, func(t *testing.T) {
			if !compare(t, &envoy.Request{}, message) {
				t.Error("the message is not valid")
			}
		})
	}
}

// A request that is read again has nothing of the one before, and keeps no memory of a large one.
func TestReset(t *testing.T) {
	full := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "10.0.0.1"},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Headers:   map[string]string{"a": "1"},
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "b", RawValue: []byte("2")}}},
		}},
		ContextExtensions: map[string]string{"roles": "a"},
	}}
	message, err := proto.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	request := &envoy.Request{}
	for _, next := range [][]byte{nil, {0xff}, message[:len(message)-1]} {
		if !compare(t, request, message) || len(request.AppendValues(nil, "b")) != 1 {
			t.Fatal("the message was not read")
		}
		compare(t, request, next)
	}
	if allocations := testing.AllocsPerRun(100, func() { request.Read(message) }); allocations != 0 {
		t.Errorf("%v allocations to read a message again, want 0", allocations)
	}
}

func TestReuse(t *testing.T) {
	for _, n := range []int{1, 256, 257} {
		s := make([]string, n)
		s[0] = "secret"
		kept := envoy.Reuse(s)
		if len(kept) != 0 || s[0] != "" && n <= 256 || cap(kept) > 256 {
			t.Errorf("of %d elements %d are left, with a capacity of %d, and the first is %q", n, len(kept), cap(kept), s[0])
		}
	}
}
