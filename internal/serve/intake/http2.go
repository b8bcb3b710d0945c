package intake

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials"
)

// GRPC returns a listener for gRPC. Its server must use the credentials that [Credentials] returns.
func (g *Gate) GRPC(socket net.Listener, capacity Capacity, limits Streams) net.Listener {
	return g.listen(socket, capacity, func(c *conn) net.Conn { return &raw{conn: c, limits: limits} })
}

// Streams are the limits of a gRPC server for one connection. All must be positive.
type Streams struct {
	// Concurrent is the maximum number of in-flight calls.
	Concurrent int
	// Head is the maximum size of the headers of a call in bytes, after decoding. A few bytes on the wire can
	// be decoded to that size, so it is counted for every call that is arriving.
	Head int
	// Message is the maximum size of a message in bytes. The server discards a larger one as it arrives.
	Message int
}

// raw is a connection before its handshake.
type raw struct {
	*conn

	limits Streams
}

// Credentials wraps the credentials of a gRPC server on a listener of [Gate.GRPC], so that the gate can count
// the frames after decryption.
func Credentials(c credentials.TransportCredentials) credentials.TransportCredentials {
	return countingCredentials{c}
}

type countingCredentials struct {
	credentials.TransportCredentials
}

// ServerHandshake implements [credentials.TransportCredentials].
func (f countingCredentials) ServerHandshake(accepted net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := f.TransportCredentials.ServerHandshake(accepted)
	if err != nil {
		return c, info, err
	}
	r, ok := accepted.(*raw)
	if !ok {
		return nil, nil, errors.New("connection was not accepted by a listener of Gate.GRPC")
	}
	return &multiplexed{Conn: c, conn: r.conn, follower: follower{limits: r.limits}}, info, nil
}

// Clone implements [credentials.TransportCredentials].
func (f countingCredentials) Clone() credentials.TransportCredentials {
	return countingCredentials{f.TransportCredentials.Clone()}
}

// ClientHandshake implements [credentials.TransportCredentials]. It always fails.
func (f countingCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials are for servers only")
}

// multiplexed is an HTTP/2 connection. It carries many requests at a time. Each has arrived when the client
// has ended its stream.
type multiplexed struct {
	net.Conn

	conn     *conn
	follower follower
}

// Read implements [net.Conn].
func (m *multiplexed) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if n == 0 {
		return n, err
	}
	before := m.follower.held
	completed, sound := m.follower.follow(p[:n])
	if !sound {
		return 0, errTooManyStreams
	}
	if completed {
		m.conn.completed()
	}
	gate := m.conn.listener.gate
	m.conn.since.Store(m.follower.since(gate))
	if more := m.follower.held - before; more != 0 {
		gate.hold(m.conn, more)
	}
	return n, err
}

var errTooManyStreams = errors.New("too many open streams on a connection")

// frameOverhead is the memory in bytes that the server takes for a piece of a message in addition to its
// content. It matters if the pieces are tiny.
const frameOverhead = 128

// sizeOf returns the memory in bytes for a piece of a message. The gRPC library keeps pieces of more than 1
// KiB in buffers of fixed sizes.
func sizeOf(length int64) int64 {
	const exact, medium, large = 1 << 10, 4 << 10, 16 << 10
	switch {
	case length <= exact:
		return length + frameOverhead
	case length <= medium:
		return medium + frameOverhead
	default:
		return max(length, large) + frameOverhead
	}
}

// follower parses the frame headers of an HTTP/2 connection (RFC 9113) to find out which requests are
// arriving. It doesn't read the content of frames. It is not safe for concurrent use.
type follower struct {
	limits Streams

	preface int // bytes of the client's preface that were skipped
	header  [frameHeader]byte
	have    int   // bytes of header that have been read
	left    int64 // bytes of the frame's content that are still to be skipped

	streams []stream // unfinished requests, sorted by ID
	// ending is the ID of a stream that ends with its headers, which continue in CONTINUATION frames; 0 means none.
	ending uint32
	held   int64
}

// stream is a request that is arriving.
type stream struct {
	id    uint32
	since int64 // Unix nanoseconds when it was first seen unfinished; 0 before
	size  int64 // bytes of its messages
	held  int64
}

const frameHeader = 9

// follow processes bytes as they arrive. completed reports whether they complete a request. sound is false if
// the client has opened far more streams than it may.
func (f *follower) follow(p []byte) (completed, sound bool) {
	if rest := len(http2.ClientPreface) - f.preface; rest > 0 {
		n := min(rest, len(p))
		f.preface += n
		p = p[n:]
	}
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, int64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		n := copy(f.header[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have < frameHeader {
			break
		}
		f.have = 0
		if f.frame() {
			completed = true
		}
	}
	return completed, len(f.streams) <= 2*f.limits.Concurrent // a client that has not yet received the limit may exceed it
}

// frame processes a frame header and reports whether the frame completes a request.
func (f *follower) frame() bool {
	f.left = int64(f.header[0])<<16 | int64(f.header[1])<<8 | int64(f.header[2])
	kind, flags := http2.FrameType(f.header[3]), http2.Flags(f.header[4])
	id := binary.BigEndian.Uint32(f.header[5:]) &^ (1 << 31)
	switch kind {
	case http2.FrameHeaders:
		f.open(id)
		if !flags.Has(http2.FlagHeadersEndStream) {
			return false
		}
		if !flags.Has(http2.FlagHeadersEndHeaders) {
			f.ending = id
			return false
		}
		return f.end(id)
	case http2.FrameContinuation:
		if f.ending == id && flags.Has(http2.FlagContinuationEndHeaders) {
			f.ending = 0
			return f.end(id)
		}
	case http2.FrameData:
		f.piece(id)
		return flags.Has(http2.FlagDataEndStream) && f.end(id)
	case http2.FrameRSTStream:
		f.end(id)
	default:
	}
	return false
}

func (f *follower) find(id uint32) (int, bool) {
	return slices.BinarySearchFunc(f.streams, id, func(s stream, id uint32) int { return int(s.id) - int(id) })
}

func (f *follower) open(id uint32) {
	i, found := f.find(id)
	if found {
		return // these are the trailers
	}
	head := int64(f.limits.Head)
	f.streams = slices.Insert(f.streams, i, stream{id: id, held: head})
	f.held += head
}

func (f *follower) piece(id uint32) {
	i, found := f.find(id)
	if !found {
		return // the server ignores it
	}
	s := &f.streams[i]
	if s.size > int64(f.limits.Message) {
		return // the server discards it as it arrives
	}
	s.size += f.left
	more := sizeOf(f.left)
	s.held += more
	f.held += more
}

func (f *follower) end(id uint32) bool {
	i, found := f.find(id)
	if found {
		f.held -= f.streams[i].held
		f.streams = slices.Delete(f.streams, i, i+1)
	}
	return found
}

// since returns when the oldest unfinished request was first seen, in Unix nanoseconds, or 0 if there is
// none.
func (f *follower) since(g *Gate) int64 {
	if len(f.streams) == 0 {
		return 0
	}
	for i := len(f.streams) - 1; i >= 0 && f.streams[i].since == 0; i-- {
		f.streams[i].since = g.now().UnixNano()
	}
	return f.streams[0].since // stream IDs increase with time
}
