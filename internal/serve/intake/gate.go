// Package intake limits the memory, the connections and the time that requests take until they have arrived
// in full. It counts bytes and closes connections: don't parse requests or answer them here.
//
// The verifier decides on a request as soon as it has arrived, and then forgets it. But a request that never
// arrives in full could take memory without limit, at little cost to its sender: a gRPC library allocates the
// memory for a message when it reads its size. Package intake therefore counts the bytes of unfinished
// requests, for the process and for each peer address. Above a limit, it first closes the connection whose
// message has been arriving longest. A well-behaved gateway sends its messages in one piece, so its
// connections are the last to be closed.
package intake

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/apikey-operator/apikey-operator/internal/monitoring"
)

// Limits configure a [Gate]. All must be positive.
type Limits struct {
	// Bytes is the maximum memory of unfinished requests in the process, and BytesPerAddress that of one peer
	// address.
	Bytes, BytesPerAddress int64
	// Message is the maximum time that a request may take to arrive.
	Message time.Duration
}

// Reasons for which a connection is closed. They are values of a metric's label.
const (
	reasonBytes       = "bytes"
	reasonTime        = "time"
	reasonConnections = "connections"
)

// Closed connections beyond this rate are counted but not logged, so that an attacker can't fill the disk.
const (
	logRate  = 1 // lines per second
	logBurst = 10
)

// Gate counts what is arriving on all connections of a process. It is safe for concurrent use.
type Gate struct {
	limits  Limits
	now     func() time.Time
	logger  logr.Logger
	limiter *rate.Limiter

	held  atomic.Int64 // bytes, over all connections
	clock atomic.Int64 // Unix nanoseconds; at most sweepInterval old while Run runs, enough to compare idle connections

	mu        sync.Mutex
	conns     map[*conn]struct{}
	addresses map[netip.Addr]*address

	closed *prometheus.CounterVec
}

// address has what the connections from one peer address share.
type address struct {
	held  atomic.Int64
	conns int // guarded by Gate.mu
}

// NewGate returns a [Gate] and registers its metrics. logger receives a line for each connection that is
// closed, up to a limited rate. now returns the current time; nil means [time.Now].
func NewGate(limits Limits, metrics prometheus.Registerer, logger logr.Logger, now func() time.Time) *Gate {
	g := &Gate{
		limits: limits, now: now, logger: logger, limiter: rate.NewLimiter(logRate, logBurst),
		conns: map[*conn]struct{}{}, addresses: map[netip.Addr]*address{},
	}
	if g.now == nil {
		g.now = time.Now
	}
	g.clock.Store(g.now().UnixNano())
	g.closed = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: monitoring.Verifier, Name: "connections_closed_total",
		Help: "Connections that were closed to protect the process, by reason: too many bytes of unfinished requests (bytes), " +
			"a request that took too long to arrive (time), or too many connections (connections).",
	}, []string{"reason"})
	for _, reason := range []string{reasonBytes, reasonTime, reasonConnections} {
		g.closed.WithLabelValues(reason)
	}
	metrics.MustRegister(g.closed,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: monitoring.Verifier, Name: "unfinished_bytes",
			Help: "Memory in bytes for requests that have not arrived in full.",
		}, func() float64 { return float64(g.held.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: monitoring.Verifier, Name: "connections",
			Help: "Open connections of all protocols.",
		}, func() float64 { return float64(g.connections()) }),
	)
	return g
}

func (g *Gate) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// sweepInterval is how far a request can exceed Limits.Message before its connection is closed.
const sweepInterval = time.Second

// Run closes connections whose requests take too long to arrive. It returns when ctx is done.
func (g *Gate) Run(ctx context.Context) {
	ticks := time.NewTicker(sweepInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			g.sweep()
		}
	}
}

func (g *Gate) sweep() {
	now := g.now()
	g.clock.Store(now.UnixNano())
	late := now.Add(-g.limits.Message).UnixNano()
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if since := c.since.Load(); since != 0 && since < late {
			g.drop(c, reasonTime)
		}
	}
}

// hold adds to the bytes of a connection, or subtracts if bytes is negative, and closes connections if a
// limit is exceeded.
func (g *Gate) hold(c *conn, bytes int64) {
	c.held.Add(bytes)
	ofAddress, all := c.address.held.Add(bytes), g.held.Add(bytes)
	if bytes <= 0 {
		return
	}
	if ofAddress > g.limits.BytesPerAddress {
		g.relieve(c.address)
	}
	if all > g.limits.Bytes {
		g.relieve(nil)
	}
}

// relieve closes connections until the rest is within the limit: those of one address, or of all if of is
// nil.
func (g *Gate) relieve(of *address) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		held, limit := &g.held, g.limits.Bytes
		if of != nil {
			held, limit = &of.held, g.limits.BytesPerAddress
		}
		if held.Load() <= limit {
			return
		}
		oldest := g.pick(of, (*conn).arrivingSince)
		if oldest == nil {
			return
		}
		g.drop(oldest, reasonBytes)
	}
}

// pick returns the connection for which moment is smallest and not 0, or nil: among those of one address, or
// of all if of is nil. The caller holds g.mu.
func (g *Gate) pick(of *address, moment func(*conn) int64) *conn {
	var picked *conn
	var least int64
	for c := range g.conns {
		if of != nil && c.address != of || c.dropped.Load() {
			continue
		}
		if at := moment(c); at != 0 && (picked == nil || at < least) {
			picked, least = c, at
		}
	}
	return picked
}

// drop closes the underlying connection. Its server gets an error from its next read and calls Close. The
// caller holds g.mu.
func (g *Gate) drop(c *conn, reason string) {
	if c.dropped.Swap(true) {
		return
	}
	g.closed.WithLabelValues(reason).Inc()
	if g.limiter.Allow() {
		g.logger.Info("Connection closed to protect the process", "address", c.peer.String(), "reason", reason, "unfinishedBytes", c.held.Load())
	}
	g.release(c)
	_ = c.Conn.Close() // on an error, too, the next read of its server fails
}

// release subtracts all bytes of a connection. Bytes that are added after drop are subtracted by leave.
func (g *Gate) release(c *conn) {
	if held := c.held.Swap(0); held != 0 {
		c.address.held.Add(-held)
		g.held.Add(-held)
	}
	c.since.Store(0)
}

// enter adds a connection. If the listener has too many, in total or from this address, it closes one: of the
// address with most connections, the one whose last request is longest ago. So an address that opens many
// connections loses its own.
func (g *Gate) enter(c *conn) {
	c.completed()
	l := c.listener
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.addresses[c.peer]
	if a == nil {
		a = &address{}
		g.addresses[c.peer] = a
	}
	c.address = a
	switch {
	case l.ofAddress[a] >= l.capacity.PerAddress:
		g.makeRoom(a, l)
	case l.count >= l.capacity.Connections:
		g.makeRoom(l.largest(), l)
	}
	a.conns++
	l.enter(a)
	g.conns[c] = struct{}{}
}

func (g *Gate) makeRoom(of *address, l *listener) {
	idlest := g.pick(of, func(c *conn) int64 {
		if c.listener != l {
			return 0
		}
		return c.lastComplete()
	})
	if idlest != nil {
		g.drop(idlest, reasonConnections)
	}
}

// leave removes a connection that its server has closed.
func (g *Gate) leave(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.release(c)
	delete(g.conns, c)
	c.listener.leave(c.address)
	if c.address.conns--; c.address.conns == 0 {
		delete(g.addresses, c.peer)
	}
}
