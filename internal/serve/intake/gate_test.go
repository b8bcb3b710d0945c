package intake

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials/insecure"
)

// world is a gate with a clock that only the test advances.
type world struct {
	t       *testing.T
	gate    *Gate
	metrics *prometheus.Registry
	now     time.Time
}

func newWorld(t *testing.T, limits Limits) *world {
	t.Helper()
	w := &world{t: t, metrics: prometheus.NewRegistry(), now: time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)}
	w.gate = NewGate(limits, w.metrics, logr.Discard(), func() time.Time { return w.now })
	return w
}

func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.gate.sweep()
}

func (w *world) expectHeld(want int64) {
	w.t.Helper()
	if got := w.gate.held.Load(); got != want {
		w.t.Errorf("the gate holds %d bytes, want %d", got, want)
	}
}

func (w *world) expectClosed(reason string, want float64) {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if labels := metric.GetLabel(); len(labels) == 1 && labels[0].GetValue() == reason {
				if got := metric.GetCounter().GetValue(); got != want {
					w.t.Errorf("%v connections were closed with reason %s, want %v", got, reason, want)
				}
				return
			}
		}
	}
	w.t.Errorf("no metric with reason %s", reason)
}

// peer has both ends of a connection.
type peer struct {
	client, server net.Conn
}

func (w *world) listen(wrap func(net.Listener) net.Listener) net.Listener {
	w.t.Helper()
	socket, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = socket.Close() })
	return wrap(socket)
}

func (w *world) grpc(capacity Capacity) net.Listener {
	w.t.Helper()
	return w.listen(func(socket net.Listener) net.Listener { return w.gate.GRPC(socket, capacity, testStreams) })
}

// connect opens a connection from an address of the loopback network.
func (w *world) connect(to net.Listener, from string) *peer {
	w.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client, err := dialer.DialContext(w.t.Context(), "tcp", to.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	server, err := to.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	if _, ok := server.(*raw); ok {
		if server, _, err = Credentials(insecure.NewCredentials()).ServerHandshake(server); err != nil {
			w.t.Fatal(err)
		}
	}
	return &peer{client: client, server: server}
}

// send writes bytes, lets the server read them, and reports whether the connection is still open.
func (w *world) send(p *peer, wire []byte) bool {
	w.t.Helper()
	if _, err := p.client.Write(wire); err != nil {
		w.t.Fatal(err)
	}
	_, err := io.ReadFull(p.server, make([]byte, len(wire)))
	return err == nil && p.open()
}

func (p *peer) open() bool {
	_ = p.server.SetReadDeadline(time.Unix(1, 0))
	_, err := p.server.Read(make([]byte, 1))
	_ = p.server.SetReadDeadline(time.Time{})
	return !errors.Is(err, net.ErrClosed)
}

// unfinished returns the frames of a call with a message of this size that doesn't end the stream.
func unfinished(t *testing.T, bytes int) []byte {
	t.Helper()
	return script(t, func(f *http2.Framer) { headers(f, 1, false, true); _ = f.WriteData(1, false, make([]byte, bytes)) })
}

const unfinishedSize = 1000 + 872 + frameOverhead // bytes

var wide = Capacity{Connections: 100, PerAddress: 100}

func TestLongestArrivingRequestOfAnAddressIsClosedFirst(t *testing.T) {
	w := newWorld(t, Limits{Bytes: 1 << 30, BytesPerAddress: 2 * unfinishedSize, Message: time.Hour})
	l := w.grpc(wide)
	other, first, second, third := w.connect(l, "127.0.0.1"), w.connect(l, "127.0.0.2"), w.connect(l, "127.0.0.2"), w.connect(l, "127.0.0.2")
	for _, p := range []*peer{other, first, second} {
		if w.pass(time.Second); !w.send(p, unfinished(t, 872)) {
			t.Error("a connection was closed below the limit")
		}
	}
	w.pass(time.Second)
	if !w.send(third, unfinished(t, 872)) || first.open() || !second.open() || !other.open() {
		t.Error("want the first connection of the address closed, and no others")
	}
	w.expectHeld(3 * unfinishedSize)
	w.expectClosed(reasonBytes, 1)
	for _, p := range []*peer{other, first, second, third} {
		_ = p.server.Close()
		_ = p.server.Close()
	}
	w.expectHeld(0)
	if w.gate.connections() != 0 || len(w.gate.addresses) != 0 {
		t.Errorf("after all are closed, the gate has %d connections and %d addresses", w.gate.connections(), len(w.gate.addresses))
	}
}

func TestLongestArrivingRequestOfAllIsClosedFirst(t *testing.T) {
	w := newWorld(t, Limits{Bytes: 2 * unfinishedSize, BytesPerAddress: 1 << 30, Message: time.Hour})
	l := w.grpc(wide)
	var peers [3]*peer
	for i, from := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		w.pass(time.Second)
		peers[i] = w.connect(l, from)
		w.send(peers[i], unfinished(t, 872))
	}
	if peers[0].open() || !peers[1].open() || !peers[2].open() {
		t.Error("want the first connection closed, and no others")
	}
	w.expectHeld(2 * unfinishedSize)
}

// A gateway that sends each request in one piece takes nothing of the limit, however many it sends.
func TestWholeRequestsHoldNothing(t *testing.T) {
	w := newWorld(t, Limits{Bytes: 5000, BytesPerAddress: 5000, Message: time.Second})
	p := w.connect(w.grpc(wide), "127.0.0.1")
	for range 100 {
		w.send(p, script(t, func(f *http2.Framer) { headers(f, 1, false, true); _ = f.WriteData(1, true, make([]byte, 872)) })[len(http2.ClientPreface):])
		w.pass(time.Minute)
	}
	if !p.open() {
		t.Error("the connection was closed")
	}
	w.expectHeld(0)
}

func TestSlowRequestIsClosed(t *testing.T) {
	w := newWorld(t, Limits{Bytes: 1 << 30, BytesPerAddress: 1 << 30, Message: 10 * time.Second})
	l := w.grpc(wide)
	slow, idle := w.connect(l, "127.0.0.1"), w.connect(l, "127.0.0.1")
	start := script(t, func(f *http2.Framer) { headers(f, 1, false, true) })
	w.send(slow, start)
	w.send(idle, start[:len(http2.ClientPreface)])
	w.pass(10 * time.Second)
	// A further byte doesn't extend the time.
	if !w.send(slow, []byte{0}) {
		t.Error("the connection was closed before its time was over")
	}
	w.pass(time.Nanosecond)
	if slow.open() || !idle.open() {
		t.Error("want the connection with the slow request closed and the idle one open")
	}
	w.expectClosed(reasonTime, 1)
}

func TestOldConnectionsMakeRoomForNewOnes(t *testing.T) {
	w := newWorld(t, Limits{Bytes: 1 << 30, BytesPerAddress: 1 << 30, Message: time.Hour})
	l := w.grpc(Capacity{Connections: 4, PerAddress: 3})
	whole := script(t, func(f *http2.Framer) { headers(f, 1, true, true) })
	honest := w.connect(l, "127.0.0.1")
	w.pass(time.Second)
	var many [4]*peer
	connect := func(i int) {
		t.Helper()
		many[i] = w.connect(l, "127.0.0.2")
		w.pass(time.Second)
	}
	open := func(want ...bool) {
		t.Helper()
		for i, open := range want {
			if many[i].open() != open {
				t.Errorf("connection %d is open: %t, want %t", i, !open, open)
			}
		}
		if !honest.open() {
			t.Error("the connection of the other address is closed")
		}
	}
	for i := range 3 {
		connect(i)
	}
	w.send(many[0], whole) // its last request is now the most recent
	open(true, true, true)
	connect(3) // exceeds the limit of the address
	open(true, false, true, true)
	_ = many[1].server.Close() // as its server does
	w.connect(l, "127.0.0.3")  // exceeds the limit of the listener
	open(true, false, false, true)
	w.expectClosed(reasonConnections, 2)
}

// net/http half closes a connection before it closes it with an unread rest of a request. Otherwise, a proxy
// that still reads the answer gets a connection reset.
func TestConnectionCanBeHalfClosed(t *testing.T) {
	w := newWorld(t, Limits{Bytes: 1 << 30, BytesPerAddress: 1 << 30, Message: time.Hour})
	p := w.connect(w.listen(func(socket net.Listener) net.Listener { return w.gate.HTTP1(socket, wide) }), "127.0.0.1")
	half, ok := p.server.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("the connection has no method CloseWrite")
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(p.client); err != nil || len(answer) != 0 {
		t.Errorf("the client read %q, error %v; want the end of the stream", answer, err)
	}
	if !w.send(p, []byte("more")) {
		t.Error("the connection is closed in both directions")
	}
}

// Over HTTP/1.1, a request counts as unfinished until its handler starts.
func TestHTTP1(t *testing.T) {
	w := newWorld(t, Limits{Bytes: 1 << 30, BytesPerAddress: 1 << 30, Message: time.Second})
	l := w.listen(func(socket net.Listener) net.Listener { return w.gate.HTTP1(socket, wide) })
	handled := make(chan int64)
	server := &http.Server{ReadHeaderTimeout: time.Hour, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		handled <- w.gate.held.Load()
	})}
	Attach(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for range 2 {
		if _, err := io.WriteString(client, request); err != nil {
			t.Fatal(err)
		}
		if held := <-handled; held != 0 {
			t.Errorf("the gate holds %d bytes while the handler runs, want 0", held)
		}
		if _, err := io.ReadFull(client, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(client, strings.TrimSuffix(request, "\n")); err != nil {
		t.Fatal(err)
	}
	// Until the server has read the request. If it comes before net/http calls the connection idle, its first byte counts for the request
	// before it, which releases all: net/http reads one byte ahead, to notice that a client has gone.
	for w.gate.held.Load() < int64(serialOverhead+len(request)-2) {
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
			runtime.Gosched()
		}
	}
	w.pass(2 * time.Second)
	if _, err := io.Copy(io.Discard, client); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("error %v, want the connection closed or reset", err)
	}
	w.expectClosed(reasonTime, 1)
	if err := server.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	w.expectHeld(0)
}
