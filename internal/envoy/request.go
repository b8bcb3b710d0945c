// Package envoy reads the CheckRequest and writes the CheckResponse of Envoy's external authorization (ext_authz v3). The
// types of go-control-plane do the same, and take many times as long. This package reads only what a decision
// needs, and keeps nothing but references to the message. It must accept and refuse the same bytes as those types, and
// read the same from them: tests compare both. Don't decide here, and don't depend on gRPC.
package envoy

import (
	"iter"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Request has what a decision needs of a CheckRequest. It refers to the bytes that it was read from, so it is valid as
// long as they are. The zero value is empty.
type Request struct {
	address    []byte
	headers    []pair
	raw        []rawHeader
	extensions []pair
}

// pair is an entry of a map.
type pair struct{ name, value []byte }

// rawHeader is a header of header_map. Its value is in bytes, or in text if bytes is empty.
type rawHeader struct{ name, text, bytes []byte }

// Read reads a CheckRequest, which replaces what was read before. It returns false if protobuf can't decode the bytes.
// The request is then empty.
func (r *Request) Read(message []byte) bool {
	r.Reset()
	if !r.message(message, checkRequest, protowire.DefaultRecursionLimit) {
		r.Reset()
		return false
	}
	return true
}

// Reset drops all references to the message. It keeps memory for the next one, unless the message was an unusual one.
func (r *Request) Reset() {
	*r = Request{headers: Reuse(r.headers), raw: Reuse(r.raw), extensions: Reuse(r.extensions)}
}

// Reuse returns the slice without its elements, to be filled again. It drops the memory if that is more than ordinary
// messages need, which an attacker could make it.
func Reuse[E any](s []E) []E {
	const enough = 256 // elements
	if cap(s) > enough {
		return nil
	}
	clear(s)
	return s[:0]
}

// Address returns the IP address of the peer of Envoy's connection as text. It is empty if the message has none.
func (r *Request) Address() []byte { return r.address }

// AppendValues appends the values of all headers with a name, in order. Envoy sends either a map with lower-case names,
// in which it joins repeated headers by commas, or, with encode_raw_headers, a list of all headers. The name must be in
// lower case, as in HTTP/2 (RFC 9113, section 8.2).
func (r *Request) AppendValues(values []string, name string) []string {
	before := len(values)
	for i := range r.raw {
		if header := &r.raw[i]; string(header.name) == name {
			value := header.text
			if len(header.bytes) > 0 {
				value = header.bytes
			}
			values = append(values, string(value))
		}
	}
	if len(values) > before {
		return values
	}
	// The last entry of a map counts.
	for i := len(r.headers) - 1; i >= 0; i-- {
		if string(r.headers[i].name) == name {
			return append(values, string(r.headers[i].value))
		}
	}
	return values
}

// HeaderNames returns the names of all headers. A name may occur several times.
func (r *Request) HeaderNames() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := range r.headers {
			if !yield(r.headers[i].name) {
				return
			}
		}
		for i := range r.raw {
			if !yield(r.raw[i].name) {
				return
			}
		}
	}
}

// Extensions returns the names and values of context_extensions. If a name occurs several times, the last value counts.
func (r *Request) Extensions() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := range r.extensions {
			if !yield(r.extensions[i].name, r.extensions[i].value) {
				return
			}
		}
	}
}

// message reads a message of a type, or a part of it: parts of the same message are merged. depth is the number of
// messages that may be nested.
func (r *Request) message(b []byte, of message, depth int) bool {
	if depth--; depth < 0 {
		return false
	}
	for len(b) > 0 {
		number, wireType, rest := consumeTag(b)
		if number == 0 {
			return false
		}
		b = rest
		var f field
		if int(number) < len(of) {
			f = of[number]
		}
		if f.kind == table && depth == 0 {
			return false // protobuf counts the entry before it looks at its wire type
		}
		if f.kind == 0 || wireType != protowire.BytesType {
			n := protowire.ConsumeFieldValue(number, wireType, b)
			if n < 0 {
				return false
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 || !r.value(value, &f, depth) {
			return false
		}
		b = b[n:]
	}
	return true
}

// value reads the value of a field.
func (r *Request) value(b []byte, f *field, depth int) bool {
	switch f.kind {
	case text:
		if !utf8.Valid(b) {
			return false
		}
		r.put(f.take, b)
	case submessage:
		r.put(f.take, b)
		return r.message(b, *f.of, depth)
	case table:
		entry, ok := r.entry(b, f.of, depth-1)
		switch f.take {
		case toHeaders:
			r.headers = append(r.headers, entry)
		case toExtensions:
			r.extensions = append(r.extensions, entry)
		default:
		}
		return ok
	default:
		r.put(f.take, b)
	}
	return true
}

// put stores a value. Fields of a raw header belong to the last one that has begun.
func (r *Request) put(to take, value []byte) {
	switch to {
	case toAddress:
		r.address = value
	case toOtherAddress:
		r.address = nil
	case toRaw:
		r.raw = append(r.raw, rawHeader{})
	case toRawName:
		r.raw[len(r.raw)-1].name = value
	case toRawText:
		r.raw[len(r.raw)-1].text = value
	case toRawBytes:
		r.raw[len(r.raw)-1].bytes = value
	default:
	}
}

// Fields of a map's entry.
const (
	entryKey   = 1
	entryValue = 2
)

// entry reads an entry of a map. A value that is a message is not returned.
func (r *Request) entry(b []byte, of *message, depth int) (entry pair, ok bool) {
	for len(b) > 0 {
		number, wireType, rest := consumeTag(b)
		if number == 0 {
			return entry, false
		}
		b = rest
		if number > entryValue || wireType != protowire.BytesType {
			n := protowire.ConsumeFieldValue(number, wireType, b)
			if n < 0 {
				return entry, false
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return entry, false
		}
		b = b[n:]
		switch {
		case number == entryValue && of != nil:
			if !r.message(value, *of, depth) {
				return entry, false
			}
		case !utf8.Valid(value):
			return entry, false
		case number == entryKey:
			entry.name = value
		default:
			entry.value = value
		}
	}
	return entry, true
}

// consumeTag returns the number and the wire type of a field, and the bytes after them. The number is 0 if it is not
// valid.
func consumeTag(b []byte) (protowire.Number, protowire.Type, []byte) {
	number, wireType, n := protowire.ConsumeTag(b)
	if n < 0 || number > protowire.MaxValidNumber {
		return 0, 0, nil
	}
	return number, wireType, b[n:]
}
