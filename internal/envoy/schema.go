package envoy

// message says what matters of a message type: the fields that are read, and those whose content the library checks.
// Anything that is not listed, or has another wire type, is skipped as protobuf skips unknown fields. TestSchema compares
// these types with those of go-control-plane.
type message []field // by number

// field is a field whose wire type is a length and that many bytes.
type field struct {
	kind kind
	// of is the type of a submessage, or of the values of a map. Nil means that the values are text.
	of   *message
	take take
}

// kind is what the bytes of a field are. The zero value means that they don't matter.
type kind uint8

const (
	octets     kind = iota + 1
	text            // must be UTF-8
	submessage      // may be repeated or not: a reader can't tell the difference
	table           // a map with text as keys
)

// take says where the content of a field goes. The zero value means nowhere.
type take uint8

const (
	toAddress      take = iota + 1
	toOtherAddress      // another member of the oneof that the address is in
	toHeaders
	toRaw
	toRawName
	toRawText
	toRawBytes
	toExtensions
)

var (
	checkRequest = message{1: {kind: submessage, of: &attributeContext}}

	attributeContext = message{
		1:  {kind: submessage, of: &sourcePeer},
		2:  {kind: submessage, of: &peer},
		4:  {kind: submessage, of: &request},
		10: {kind: table, take: toExtensions},
		11: {kind: submessage, of: &metadata},
		12: {kind: submessage, of: &message{1: {kind: text}}}, // TLSSession
		13: {kind: submessage, of: &metadata},
	}

	// The address of the source is read, that of the destination is not.
	sourcePeer = peerAt(message{
		1: {kind: submessage, of: socketAddress(toAddress)},
		2: {kind: submessage, of: &pipe, take: toOtherAddress},
		3: {kind: submessage, of: &internalAddress, take: toOtherAddress},
	})
	peer = peerAt(message{
		1: {kind: submessage, of: socketAddress(0)},
		2: {kind: submessage, of: &pipe},
		3: {kind: submessage, of: &internalAddress},
	})
	pipe            = message{1: {kind: text}}
	internalAddress = message{1: {kind: text}, 2: {kind: text}}

	request = message{
		1: {kind: submessage, of: &message{}}, // Timestamp
		2: {kind: submessage, of: &httpRequest},
	}
	httpRequest = message{
		1:  {kind: text},
		2:  {kind: text},
		3:  {kind: table, take: toHeaders},
		4:  {kind: text},
		5:  {kind: text},
		6:  {kind: text},
		7:  {kind: text},
		8:  {kind: text},
		10: {kind: text},
		11: {kind: text},
		13: {kind: submessage, of: &headerMap},
	}
	headerMap   = message{1: {kind: submessage, of: &headerValue, take: toRaw}}
	headerValue = message{
		1: {kind: text, take: toRawName},
		2: {kind: text, take: toRawText},
		3: {kind: octets, take: toRawBytes},
	}

	metadata = message{
		1: {kind: table, of: structure()},
		2: {kind: table, of: &message{1: {kind: text}}}, // Any
	}
)

func peerAt(address message) message {
	return message{
		1: {kind: submessage, of: &address},
		2: {kind: text},
		3: {kind: table},
		4: {kind: text},
		5: {kind: text},
	}
}

func socketAddress(address take) *message {
	return &message{2: {kind: text, take: address}, 4: {kind: text}, 5: {kind: text}, 7: {kind: text}}
}

// structure returns the type of google.protobuf.Struct, which contains itself.
func structure() *message {
	structure, list, value := &message{}, &message{}, &message{}
	*structure = message{1: {kind: table, of: value}}
	*list = message{1: {kind: submessage, of: value}}
	*value = message{3: {kind: text}, 5: {kind: submessage, of: structure}, 6: {kind: submessage, of: list}}
	return structure
}
