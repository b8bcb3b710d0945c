package serve

import (
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// MaxMessage bounds a gRPC message that is read, in bytes: all headers of a request, and more than the proxies in front let pass.
const MaxMessage = 256 << 10

// ErrUnreadable says that a message has arrived in full and can't be read: it is too large, or not what it should be.
var ErrUnreadable = errors.New("the message can't be read")

// wire is how grpc-go's own stream is read: the five bytes before a message, and its bytes in portions.
type wire interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
}

// Receive reads the one message of a unary call. Where grpc-go would fail the call because of what the client sent, this returns
// [ErrUnreadable], so that the call can be answered: a gateway takes a failed call for a failed server, and may be told to let requests
// through then. A message above [MaxMessage] is read to its end and thrown away as it comes. Any other error means that the client is gone.
func Receive(stream grpc.ServerStream, into proto.Message) error {
	source, ok := grpc.ServerTransportStreamFromContext(stream.Context()).(wire)
	if !ok {
		return errors.New("this version of grpc-go does not let a message be read in portions")
	}
	err := receive(source, into)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrUnreadable // the client has sent all that it will
	}
	return err
}

func receive(source wire, into proto.Message) error {
	var header [5]byte
	if err := source.ReadMessageHeader(header[:]); err != nil {
		return err
	}
	compressed, size := header[0] != 0, int64(binary.BigEndian.Uint32(header[1:]))
	if compressed || size > MaxMessage {
		if err := discard(source, size); err != nil {
			return err
		}
		return ErrUnreadable
	}
	data, err := source.Read(int(size))
	if err != nil {
		return err
	}
	defer data.Free()
	if err := source.ReadMessageHeader(header[:]); err == nil {
		return ErrUnreadable // there is another message
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	if err := proto.Unmarshal(buffer.ReadOnlyData(), into); err != nil {
		proto.Reset(into)
		return ErrUnreadable
	}
	return nil
}

// discard reads bytes and throws them away. Reading in small portions keeps the stream's window small, and so what is held of it.
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
