// Package serve has what all protocols share: listeners and their limits, readiness, the answer for each
// result, and the observers of decisions. Each package below it translates one protocol to a [verify.Request]
// and a [verify.Decision] back. Don't decide here, don't depend on a protocol, and don't call the API server.
package serve

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Checker decides on requests and notifies its observers of each decision.
type Checker struct {
	keys      verify.Keys
	observers []Observer
	now       func() time.Time
}

// Options configure a [Checker].
type Options struct {
	// Keys are the API keys to decide with.
	Keys verify.Keys
	// Observers are notified of each decision, in this order.
	Observers []Observer
	// Now returns the current time. Nil means [time.Now].
	Now func() time.Time
}

// Observer is notified of decisions. [Metrics] and [Log] are observers.
type Observer interface {
	// Protocol returns the observer for the decisions of one protocol. It is called once for each protocol,
	// before the first request.
	Protocol(name string) ProtocolObserver
}

// ProtocolObserver is notified of the decisions of one protocol. Its methods are called concurrently. The
// request waits for them, so they must not block or panic.
type ProtocolObserver interface {
	// Decided is called after the decision and before the answer. at is the time that the decision was made
	// for, took is how long it took. Decided returns a function that is then called with the request, or nil
	// if the observer doesn't need it, which is the usual case.
	Decided(decision verify.Decision, at time.Time, took time.Duration) func(Asked)
	// Panicked is called with the recovered value when a handler panics. The request is refused.
	Panicked(recovered any)
}

// Asked has the parts of a request that observers may see. It never has the credential. It is passed by
// value, and only to observers that ask for it, because passing the address of a request through an interface
// would allocate the request on the heap.
type Asked struct {
	// Address is the client address. The zero value means unknown.
	Address netip.Addr
	// Route is the scope of the route.
	Route verify.Route
	// Traceparent is the value of the header of that name, or empty. Clients control it, so don't trust it.
	Traceparent string
}

// NewChecker returns a [Checker].
func NewChecker(o Options) *Checker {
	c := &Checker{keys: o.Keys, observers: o.Observers, now: o.Now}
	if c.now == nil {
		c.now = time.Now
	}
	return c
}

// Ready reports whether any request can get another result than [verify.NotReady].
func (c *Checker) Ready() bool { return c.keys.Ready(c.now()) }

// Protocol is a [Checker] for the requests of one protocol.
type Protocol struct {
	*Checker
	observers []ProtocolObserver
}

// Protocol returns the checker for the protocol with the name that metrics and logs use.
func (c *Checker) Protocol(name string) *Protocol {
	p := &Protocol{Checker: c}
	for _, observer := range c.observers {
		p.observers = append(p.observers, observer.Protocol(name))
	}
	return p
}

// Check decides on a request and notifies the observers. traceparent is the value of the request's header of
// that name, or empty.
func (p *Protocol) Check(request *verify.Request, traceparent string) verify.Decision {
	now := p.now()
	decision := verify.Decide(p.keys, request, now)
	took := p.now().Sub(now)
	for _, observer := range p.observers {
		if tell := observer.Decided(decision, now, took); tell != nil {
			tell(Asked{Address: request.Address, Route: request.Route, Traceparent: traceparent})
		}
	}
	return decision
}

// Panicked notifies the observers of a panic. The caller must refuse the request.
func (p *Protocol) Panicked(recovered any) {
	for _, observer := range p.observers {
		observer.Panicked(recovered)
	}
}

// Recovering returns a handler that recovers from panics of handler and then refuses the request.
func (p *Protocol) Recovering(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recovered := recover(); recovered != nil {
				p.Panicked(recovered)
				AnswerTo(verify.NotReady).Write(w)
			}
		}()
		handler.ServeHTTP(w, r)
	})
}
