package envoy

import "google.golang.org/protobuf/encoding/protowire"

// Field is a header or an entry of the metadata. Both texts must be UTF-8.
type Field struct{ Name, Value string }

// OK is a CheckResponse that accepts the request.
type OK struct {
	// Set are headers that overwrite those of the request.
	Set []Field
	// Remove are the names of headers to remove.
	Remove []string
	// Metadata is the dynamic metadata.
	Metadata []Field
	// Attributes are an entry of the metadata with the name attributes, unless there are none.
	Attributes []Field
}

// Tags of the fields that are written: the number, shifted by three, and the wire type.
const (
	tagStatus   = 1<<3 | byte(protowire.BytesType)
	tagDenied   = 2<<3 | byte(protowire.BytesType)
	tagOK       = 3<<3 | byte(protowire.BytesType)
	tagMetadata = 4<<3 | byte(protowire.BytesType)

	tagStatusCode = 1<<3 | byte(protowire.VarintType) // of google.rpc.Status

	tagOKHeaders = 2<<3 | byte(protowire.BytesType)
	tagOKRemove  = 5<<3 | byte(protowire.BytesType)

	tagDeniedStatus  = 1<<3 | byte(protowire.BytesType)
	tagDeniedHeaders = 2<<3 | byte(protowire.BytesType)
	tagHTTPCode      = 1<<3 | byte(protowire.VarintType)

	tagOptionHeader = 1<<3 | byte(protowire.BytesType) // of HeaderValueOption
	tagOptionAction = 3<<3 | byte(protowire.VarintType)

	tagKey   = 1<<3 | byte(protowire.BytesType) // of HeaderValue and of the entry of a map
	tagValue = 2<<3 | byte(protowire.BytesType)

	tagStructFields = 1<<3 | byte(protowire.BytesType)
	tagString       = 3<<3 | byte(protowire.BytesType) // of google.protobuf.Value
	tagStruct       = 5<<3 | byte(protowire.BytesType)
)

// overwrite is the action OVERWRITE_IF_EXISTS_OR_ADD.
const overwrite = 2

// attributes is the name of the metadata that has the attributes.
const attributes = "attributes"

// Reset empties the response, so that it can be filled again.
func (o *OK) Reset() {
	*o = OK{Set: Reuse(o.Set), Remove: Reuse(o.Remove), Metadata: Reuse(o.Metadata), Attributes: Reuse(o.Attributes)}
}

// Append appends the encoded response.
func (o *OK) Append(b []byte) []byte {
	b = append(b, tagStatus, 0) // the code 0, which is OK, is not written
	size := sizeOfHeaders(o.Set)
	for _, name := range o.Remove {
		size += sizeOfField(len(name))
	}
	b = appendLength(b, tagOK, size)
	b = appendHeaders(b, tagOKHeaders, o.Set)
	for _, name := range o.Remove {
		b = appendText(b, tagOKRemove, name)
	}

	size = sizeOfStruct(o.Metadata)
	all := 0 // the size of the attributes
	if len(o.Attributes) > 0 {
		all = sizeOfStruct(o.Attributes)
		size += sizeOfField(sizeOfEntry(len(attributes), all))
	}
	b = appendLength(b, tagMetadata, size)
	b = appendStruct(b, o.Metadata)
	if len(o.Attributes) > 0 {
		b = appendLength(b, tagStructFields, sizeOfEntry(len(attributes), all))
		b = appendText(b, tagKey, attributes)
		b = appendLength(b, tagValue, sizeOfField(all))
		b = appendLength(b, tagStruct, all)
		b = appendStruct(b, o.Attributes)
	}
	return b
}

// AppendDenied appends a CheckResponse that refuses the request: with a gRPC code other than OK, and with the HTTP
// status and headers for the client.
func AppendDenied(b []byte, code, status uint32, headers []Field) []byte {
	b = appendNumber(b, tagStatus, tagStatusCode, code)
	b = appendLength(b, tagDenied, sizeOfField(sizeOfNumber(status))+sizeOfHeaders(headers))
	b = appendNumber(b, tagDeniedStatus, tagHTTPCode, status)
	return appendHeaders(b, tagDeniedHeaders, headers)
}

// sizeOfField returns the size of a field with a tag of one byte, a length and content of this size.
func sizeOfField(content int) int { return 1 + protowire.SizeBytes(content) }

// sizeOfNumber returns the size of a field with a tag of one byte and a number.
func sizeOfNumber(number uint32) int { return 1 + protowire.SizeVarint(uint64(number)) }

func appendLength(b []byte, tag byte, length int) []byte {
	return protowire.AppendVarint(append(b, tag), uint64(length)) //nolint:gosec // never negative
}

func appendText(b []byte, tag byte, value string) []byte {
	return append(appendLength(b, tag, len(value)), value...)
}

// appendNumber appends a message that has a number and nothing else.
func appendNumber(b []byte, tag, tagNumber byte, number uint32) []byte {
	b = appendLength(b, tag, sizeOfNumber(number))
	return protowire.AppendVarint(append(b, tagNumber), uint64(number))
}

const sizeOfAction = 2

func sizeOfHeader(f Field) int { return sizeOfField(len(f.Name)) + sizeOfField(len(f.Value)) }

func sizeOfHeaders(fields []Field) int {
	size := 0
	for _, f := range fields {
		size += sizeOfField(sizeOfField(sizeOfHeader(f)) + sizeOfAction)
	}
	return size
}

func appendHeaders(b []byte, tag byte, fields []Field) []byte {
	for _, f := range fields {
		header := sizeOfHeader(f)
		b = appendLength(b, tag, sizeOfField(header)+sizeOfAction)
		b = appendLength(b, tagOptionHeader, header)
		b = appendText(b, tagKey, f.Name)
		b = appendText(b, tagValue, f.Value)
		b = append(b, tagOptionAction, overwrite)
	}
	return b
}

// sizeOfEntry returns the size of an entry of a google.protobuf.Struct whose value has this size.
func sizeOfEntry(name, value int) int { return sizeOfField(name) + sizeOfField(sizeOfField(value)) }

func sizeOfStruct(fields []Field) int {
	size := 0
	for _, f := range fields {
		size += sizeOfField(sizeOfEntry(len(f.Name), len(f.Value)))
	}
	return size
}

func appendStruct(b []byte, fields []Field) []byte {
	for _, f := range fields {
		b = appendLength(b, tagStructFields, sizeOfEntry(len(f.Name), len(f.Value)))
		b = appendText(b, tagKey, f.Name)
		b = appendLength(b, tagValue, sizeOfField(len(f.Value)))
		b = appendText(b, tagString, f.Value)
	}
	return b
}
