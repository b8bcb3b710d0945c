package intake

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Capacity says how many connections a listener takes.
type Capacity struct {
	// Connections are at most open at a time, and PerAddress from one address of a peer. Both must be positive.
	Connections, PerAddress int
}

// listener is a listener of a Gate. Its counts are guarded by the gate's mutex.
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

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, listener: l, peer: peerOf(accepted)}
	l.gate.enter(c)
	return l.wrap(c), nil
}

// peerOf is the zero value for a connection that has no address, as one in memory.
func peerOf(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// largest is the address with most connections.
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

// conn is a connection that a Gate counts. Who reads from it says what is arriving.
type conn struct {
	net.Conn

	listener *listener
	peer     netip.Addr
	address  *address

	held    atomic.Int64 // bytes
	since   atomic.Int64 // Unix nanoseconds at which the oldest unfinished request was noticed; 0 if there is none
	last    atomic.Int64 // Unix nanoseconds at which a request was complete, or the connection was accepted
	dropped atomic.Bool
	close   sync.Once
}

func (c *conn) arrivingSince() int64 { return c.since.Load() }

func (c *conn) lastComplete() int64 { return c.last.Load() }

// completed notes that a request has arrived in full.
func (c *conn) completed() { c.last.Store(c.listener.gate.clock.Load()) }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.close.Do(func() { c.listener.gate.leave(c) })
	return c.Conn.Close()
}

// CloseWrite tells the peer that nothing more comes. net/http does so before it closes a connection whose request it has not read to its
// end: what it has answered would be lost otherwise.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
