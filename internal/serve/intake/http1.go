package intake

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

// HTTP1 returns a listener for HTTP/1.1, with or without TLS on top. Pass its server to [Attach].
func (g *Gate) HTTP1(socket net.Listener, capacity Capacity) net.Listener {
	return g.listen(socket, capacity, func(c *conn) net.Conn { return &serial{conn: c} })
}

// serial is a connection that carries one request at a time. Everything that is read from it counts as
// unfinished until the handler starts.
type serial struct {
	*conn
}

// serialOverhead is the memory in bytes that the server takes for a connection with a request: buffers and a
// goroutine.
const serialOverhead = 16 << 10

// Read implements [net.Conn].
func (s *serial) Read(p []byte) (int, error) {
	n, err := s.conn.Read(p)
	if n > 0 {
		more := int64(n)
		if s.since.Load() == 0 {
			s.since.Store(s.listener.gate.now().UnixNano())
			more += serialOverhead
		}
		s.listener.gate.hold(s.conn, more)
	}
	return n, err
}

func (s *serial) arrived() {
	s.completed()
	s.listener.gate.release(s.conn)
}

type serialKey struct{}

// Attach makes the server report to its connections when a request has arrived. The connections must come
// from [Gate.HTTP1]. Call it before the server serves.
func Attach(server *http.Server) {
	handler := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s, ok := r.Context().Value(serialKey{}).(*serial); ok {
			s.arrived()
		}
		handler.ServeHTTP(w, r)
	})
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if s := serialOf(c); s != nil {
			return context.WithValue(ctx, serialKey{}, s)
		}
		return ctx
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if s := serialOf(c); s != nil && state == http.StateIdle {
			s.arrived() // the body, too
		}
	}
}

func serialOf(c net.Conn) *serial {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	s, _ := c.(*serial)
	return s
}
