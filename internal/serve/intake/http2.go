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

// GRPC is a listener for gRPC, whose server has the credentials of [Credentials].
func (g *Gate) GRPC(socket net.Listener, capacity Capacity, limits Streams) net.Listener {
	return g.listen(socket, capacity, func(c *conn) net.Conn { return &raw{conn: c, limits: limits} })
}

// Streams says what a gRPC server takes on one connection. All must be positive.
type Streams struct {
	// Concurrent is how many calls may be under way.
	Concurrent int
	// Head is how many bytes the headers of a call may have once they are decoded. A few bytes on the wire can become as many as that, so
	// that this much counts for each call that is arriving.
	Head int
	// Message is how many bytes of a message the server keeps. One that has more is thrown away as it comes.
	Message int
}

// raw is a connection before its handshake.
type raw struct {
	*conn

	limits Streams
}

// Credentials are those of a gRPC server on a GRPC listener: they make it see connections whose frames are followed.
func Credentials(c credentials.TransportCredentials) credentials.TransportCredentials {
	return following{c}
}

type following struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (f following) ServerHandshake(accepted net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := f.TransportCredentials.ServerHandshake(accepted)
	if err != nil {
		return c, info, err
	}
	r, ok := accepted.(*raw)
	if !ok {
		return nil, nil, errors.New("the connection is not one of an intake's listener")
	}
	return &multiplexed{Conn: c, conn: r.conn, follower: follower{limits: r.limits}}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (f following) Clone() credentials.TransportCredentials {
	return following{f.TransportCredentials.Clone()}
}

// ClientHandshake implements credentials.TransportCredentials. A server makes none.
func (f following) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

// multiplexed is a connection that speaks HTTP/2: many requests at a time, each of which has arrived once its stream is half closed.
type multiplexed struct {
	net.Conn

	conn     *conn
	follower follower
}

// Read implements net.Conn.
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

var errTooManyStreams = errors.New("more streams are open than the server allows")

// frameOverhead is what a server's record of a piece of a message takes, in bytes. It counts where the pieces are tiny.
const frameOverhead = 128

// sizeOf is what a piece of a message takes in memory: the gRPC library keeps pieces of more than 1 KiB in buffers of fixed sizes.
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

// follower follows the frames of an HTTP/2 connection (RFC 9113) as far as is needed to know which requests are arriving. It looks at
// no frame's content, and is used by one goroutine.
type follower struct {
	limits Streams

	preface int // bytes of the client's preface that have passed
	header  [frameHeader]byte
	have    int   // bytes of header that have been read
	left    int64 // bytes of the frame's content that have not passed

	streams []stream // that are arriving, by their number
	// ending is the stream whose headers are its last frame but go on in CONTINUATION frames; 0 for none.
	ending uint32
	held   int64
}

// stream is a request that is arriving.
type stream struct {
	id    uint32
	since int64 // Unix nanoseconds at which it was first seen to be unfinished; 0 until then
	size  int64 // bytes of its messages
	held  int64
}

const frameHeader = 9

// follow takes bytes as they come. It tells whether a request was completed by them; it is not sound if the client has opened many more
// streams than it may.
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
	return completed, len(f.streams) <= 2*f.limits.Concurrent // until the client has heard of the limit, it may exceed it
}

// frame takes a frame whose header has been read. It tells whether a request was completed by it.
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
		return // its trailers
	}
	head := int64(f.limits.Head)
	f.streams = slices.Insert(f.streams, i, stream{id: id, held: head})
	f.held += head
}

func (f *follower) piece(id uint32) {
	i, found := f.find(id)
	if !found {
		return // the server throws it away
	}
	s := &f.streams[i]
	if s.size > int64(f.limits.Message) {
		return // the server throws it away as it comes
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

// since is the moment at which the request that has been arriving longest was noticed; 0 if none is arriving.
func (f *follower) since(g *Gate) int64 {
	if len(f.streams) == 0 {
		return 0
	}
	for i := len(f.streams) - 1; i >= 0 && f.streams[i].since == 0; i-- {
		f.streams[i].since = g.now().UnixNano()
	}
	return f.streams[0].since // clients number their streams in order
}
