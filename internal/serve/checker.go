// Package serve holds what all protocols share: the listeners with their limits, readiness, the words of each answer, and who is told of
// each decision. Each folder below translates one protocol to a request and a decision back; nothing here may decide, know another protocol,
// or ask the cluster.
package serve

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Checker decides on requests, and tells its observers of each decision.
type Checker struct {
	keys      verify.Keys
	observers []Observer
	now       func() time.Time
}

// Options of a Checker.
type Options struct {
	// Keys are what it decides by.
	Keys verify.Keys
	// Observers are told of each decision, in this order.
	Observers []Observer
	// Now is time.Now unless it is set.
	Now func() time.Time
}

// Observer is somebody who is told of decisions, such as [Metrics] and [Log].
type Observer interface {
	// Protocol returns who is told of the decisions of one protocol. It is called once for each, before the first request.
	Protocol(name string) ProtocolObserver
}

// ProtocolObserver is told of the decisions of one protocol, by many goroutines at once. The request waits for each call, so that a call
// must neither block nor panic.
type ProtocolObserver interface {
	// Decided is told of a decision before it is answered: at is the moment that was decided for, and took is how long that took. It
	// returns who is to be told what was asked, too; nil, in most cases, for nobody.
	Decided(decision verify.Decision, at time.Time, took time.Duration) func(Asked)
	// Panicked is told, where it is recovered, that answering a request went wrong by a defect of ours. The request is refused.
	Panicked(recovered any)
}

// Asked is what a decision was made on, as far as observers may know: never the credential. It goes by value, and to those alone who ask
// for it, since a request whose address is given to somebody behind an interface is allocated.
type Asked struct {
	// Address is that of the client; the zero value says that nobody knows.
	Address netip.Addr
	// Route is what was asked for.
	Route verify.Route
	// Traceparent is the header of this name that came with the request, or "". A client may write whatever it likes into it.
	Traceparent string
}

// NewChecker returns a Checker.
func NewChecker(o Options) *Checker {
	c := &Checker{keys: o.Keys, observers: o.Observers, now: o.Now}
	if c.now == nil {
		c.now = time.Now
	}
	return c
}

// Ready tells whether some request can be answered with anything but NotReady.
func (c *Checker) Ready() bool { return c.keys.Ready(c.now()) }

// Protocol is a Checker for the requests of one protocol.
type Protocol struct {
	*Checker
	observers []ProtocolObserver
}

// Protocol returns a Checker for one protocol. Observers know the protocol by this name.
func (c *Checker) Protocol(name string) *Protocol {
	p := &Protocol{Checker: c}
	for _, observer := range c.observers {
		p.observers = append(p.observers, observer.Protocol(name))
	}
	return p
}

// Check decides on a request. traceparent is the header of this name that came with it, or "".
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

// Panicked records that answering a request went wrong, by a defect of ours. The request must then be refused.
func (p *Protocol) Panicked(recovered any) {
	for _, observer := range p.observers {
		observer.Panicked(recovered)
	}
}

// Recovering is a handler that refuses a request where the one below panics.
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
