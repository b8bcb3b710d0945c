package intake

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Capacity limits the open connections of a listener. Both must be positive.
type Capacity struct {
	// Connections is the limit for the listener, PerAddress that for one peer address.
	Connections, PerAddress int
}

// listener is a [net.Listener] of a [Gate]. Its counts are guarded by Gate.mu.
type listener struct {
	net.Listener

	gate      *Gate
	capacity  Capacity
	wrap      func(*conn) net.Conn
	count     int
	ofAddress map[*address]int
}

func (g *Gate) listen(socket net.Listener, capacity Capacity, wrap func(*conn) net.Conn) net.Listener {
	return &listener{Listener: socket, gate: g, capacity: capacity, wrap: wrap, ofAddress: map[*address]int{}}
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, listener: l, peer: peerOf(accepted)}
	l.gate.enter(c)
	return l.wrap(c), nil
}

// peerOf returns the zero address for a connection without an IP address, such as one in memory.
func peerOf(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// largest returns the address with the most connections.
func (l *listener) largest() *address {
	var largest *address
	for a, n := range l.ofAddress {
		if largest == nil || n > l.ofAddress[largest] {
			largest = a
		}
	}
	return largest
}

func (l *listener) enter(a *address) {
	l.count++
	l.ofAddress[a]++
}

func (l *listener) leave(a *address) {
	l.count--
	if l.ofAddress[a]--; l.ofAddress[a] == 0 {
		delete(l.ofAddress, a)
	}
}

// conn is a connection that a [Gate] counts. Its readers, serial and multiplexed, report what is arriving.
type conn struct {
	net.Conn

	listener *listener
	peer     netip.Addr
	address  *address

	held    atomic.Int64 // bytes
	since   atomic.Int64 // Unix nanoseconds when the oldest unfinished request was first seen; 0 if there is none
	last    atomic.Int64 // Unix nanoseconds when the last request was complete, or when the connection was accepted
	dropped atomic.Bool
	close   sync.Once
}

func (c *conn) arrivingSince() int64 { return c.since.Load() }

func (c *conn) lastComplete() int64 { return c.last.Load() }

// completed records that a request has arrived in full.
func (c *conn) completed() { c.last.Store(c.listener.gate.clock.Load()) }

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.close.Do(func() { c.listener.gate.leave(c) })
	return c.Conn.Close()
}

// CloseWrite sends the end of the stream to the peer. net/http calls it before it closes a connection with an
// unread rest of a request. Otherwise, the peer could lose the answer.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
