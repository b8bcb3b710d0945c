// Package intake bounds what a process holds of requests that have not arrived in full: bytes, connections, and the time that a message
// may take. It counts and closes connections; it reads no request and answers none.
//
// A request that has arrived is judged at once and forgotten. One that never arrives in full could be held for ever, and its sender pays
// little for it: a gRPC library makes room for a message as soon as its size is announced. So what is still arriving is counted over the
// whole process and for each peer's address, and under pressure the connection whose message has been arriving longest is closed first.
// An honest gateway sends its messages in one go, and is the last to be closed.
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

// Limits of a Gate. All must be positive.
type Limits struct {
	// Bytes is how much memory unfinished requests may take over the whole process, and BytesPerAddress from one address of a peer.
	Bytes, BytesPerAddress int64
	// Message is how long a request may take to arrive.
	Message time.Duration
}

// Reasons for which a connection is closed, as in the metric.
const (
	reasonBytes       = "bytes"
	reasonTime        = "time"
	reasonConnections = "connections"
)

// Closed connections beyond a rate are counted and not logged: whoever attacks must not be able to fill a disk.
const (
	logRate  = 1 // a second
	logBurst = 10
)

// Gate counts what is arriving on all connections of a process. It is safe for concurrent use.
type Gate struct {
	limits  Limits
	now     func() time.Time
	logger  logr.Logger
	limiter *rate.Limiter

	held  atomic.Int64 // bytes, over all connections
	clock atomic.Int64 // Unix nanoseconds, a second old at most while Run runs: enough to tell idle connections from busy ones

	mu        sync.Mutex
	conns     map[*conn]struct{}
	addresses map[netip.Addr]*address

	closed *prometheus.CounterVec
}

// address is what all connections of a peer's address have in common.
type address struct {
	held  atomic.Int64
	conns int // guarded by the gate's mutex
}

// NewGate returns a Gate, and registers its metrics. The logger gets a line for each connection that is closed, within a rate. now is
// time.Now unless it is set.
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
		Help: "Connections that were closed to protect the process: their unfinished requests took too many bytes or too much time, " +
			"or there were too many connections.",
	}, []string{"reason"})
	for _, reason := range []string{reasonBytes, reasonTime, reasonConnections} {
		g.closed.WithLabelValues(reason)
	}
	metrics.MustRegister(g.closed,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: monitoring.Verifier, Name: "unfinished_bytes",
			Help: "Memory that is set aside for requests that have not arrived in full.",
		}, func() float64 { return float64(g.held.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: monitoring.Verifier, Name: "connections",
			Help: "Connections that are open, over all protocols.",
		}, func() float64 { return float64(g.connections()) }),
	)
	return g
}

func (g *Gate) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// sweepInterval is how much longer than Limits.Message a request may take before it is noticed.
const sweepInterval = time.Second

// Run closes connections whose requests take too long, until the context ends.
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

// hold notes that a connection holds this many bytes more, or less, and closes connections if that is too much.
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

// relieve closes connections, of an address or of all, until what is left is within the limit.
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

// pick is the connection, of an address or of all, with the smallest moment; nil if no connection has one. The mutex is held.
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

// drop closes a connection under its server, which will close it once more. The mutex is held.
func (g *Gate) drop(c *conn, reason string) {
	if c.dropped.Swap(true) {
		return
	}
	g.closed.WithLabelValues(reason).Inc()
	if g.limiter.Allow() {
		g.logger.Info("closed a connection to protect the process", "address", c.peer.String(), "reason", reason, "unfinishedBytes", c.held.Load())
	}
	g.release(c)
	_ = c.Conn.Close() // whatever became of it, its server hears of it by its next read
}

// release gives back what a connection holds. Between this and the connection's own Close more may be added, which that gives back.
func (g *Gate) release(c *conn) {
	held := c.held.Swap(0)
	c.address.held.Add(-held)
	g.held.Add(-held)
	c.since.Store(0)
}

// enter takes a connection in. Where a listener has too many of them, or of this address, one makes place: of the address that has most,
// the one that has not completed a request for longest. So whoever opens many loses their own.
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
		g.makePlace(a, l)
	case l.count >= l.capacity.Connections:
		g.makePlace(l.largest(), l)
	}
	a.conns++
	l.enter(a)
	g.conns[c] = struct{}{}
}

func (g *Gate) makePlace(of *address, l *listener) {
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

// leave forgets a connection that its server has closed.
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
