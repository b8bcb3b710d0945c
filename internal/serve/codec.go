package serve

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Encoded is a response that is already encoded. A server needs [Codec] to send it.
type Encoded []byte

// NewEncoded returns an empty response, whose memory is used again after it was sent. Send it once, or drop it.
func NewEncoded() *Encoded {
	response := encodedPool.Get().(*Encoded) //nolint:forcetypeassert // nothing else is in there
	*response = (*response)[:0]
	return response
}

const (
	// encodedCapacity is more than most responses take. The gRPC library uses buffers again that are larger than 1 KiB.
	encodedCapacity = 2 << 10
	// maxPooled is the size above which a response's memory is not used again.
	maxPooled = 16 << 10
)

var encodedPool = sync.Pool{New: func() any {
	response := make(Encoded, 0, encodedCapacity)
	return &response
}}

// encodedBuffers is a [mem.BufferPool] that takes back the memory of responses.
type encodedBuffers struct{}

// Get implements [mem.BufferPool].
func (encodedBuffers) Get(length int) *[]byte {
	buffer := make([]byte, length)
	return &buffer
}

// Put implements [mem.BufferPool].
func (encodedBuffers) Put(buffer *[]byte) {
	if cap(*buffer) <= maxPooled {
		encodedPool.Put((*Encoded)(buffer))
	}
}

// Codec makes a gRPC server send responses of the type [Encoded] as they are. All other messages are encoded and decoded
// as without this option.
func Codec() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)})
}

type codec struct{ encoding.CodecV2 }

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	if response, ok := message.(*Encoded); ok {
		return mem.BufferSlice{mem.NewBuffer((*[]byte)(response), encodedBuffers{})}, nil
	}
	return c.CodecV2.Marshal(message)
}
