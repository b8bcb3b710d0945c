package serve

import (
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// MaxMessage is the maximum size of a gRPC message in bytes. A message carries all headers of a request, and
// this is more than the proxies in front of the verifier accept.
const MaxMessage = 256 << 10

// ErrUnreadable means that the client has sent a message that can't be read, or is too large.
var ErrUnreadable = errors.New("unreadable gRPC message")

// wire is the part of grpc-go's stream that reads a message in portions: first its header of five bytes, then
// its content.
type wire interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
}

// Receive reads the only message of a unary call. The caller must free it. Where grpc-go would fail the call because of
// what the client sent, Receive returns [ErrUnreadable], so that the call can be answered. A gateway takes a failed call
// for a failed verifier, and may be configured to accept requests in that case. A message larger than [MaxMessage] is
// read and discarded in portions. Any other error means that the client is gone.
func Receive(stream grpc.ServerStream) (mem.Buffer, error) {
	source, ok := grpc.ServerTransportStreamFromContext(stream.Context()).(wire)
	if !ok {
		return nil, errors.New("grpc-go: the stream can't be read in portions: unsupported version")
	}
	message, err := receive(source)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, ErrUnreadable // the client ended the stream within a message, or sent none
	}
	return message, err
}

func receive(source wire) (mem.Buffer, error) {
	var header [5]byte
	if err := source.ReadMessageHeader(header[:]); err != nil {
		return nil, err
	}
	compressed, size := header[0] != 0, int64(binary.BigEndian.Uint32(header[1:]))
	if compressed || size > MaxMessage {
		if err := discard(source, size); err != nil {
			return nil, err
		}
		return nil, ErrUnreadable
	}
	data, err := source.Read(int(size))
	if err != nil {
		return nil, err
	}
	defer data.Free()
	if err := source.ReadMessageHeader(header[:]); err == nil {
		return nil, ErrUnreadable // a unary call has one message
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data.MaterializeToBuffer(mem.DefaultBufferPool()), nil
}

// discard reads and drops bytes. Small portions keep the flow-control window of the stream small, and with it
// the memory that the stream takes.
func discard(source wire, bytes int64) error {
	const portion = 16 << 10
	for bytes > 0 {
		data, err := source.Read(int(min(bytes, portion)))
		if err != nil {
			return err
		}
		bytes -= int64(data.Len())
		data.Free()
	}
	return nil
}
