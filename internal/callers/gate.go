package callers

import (
	"context"
	"hash/maphash"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/utils/clock"
)

// limits limit the reviews that callers can cause.
type limits struct {
	// address limits the reviews of unknown tokens from one address; all limits those from all addresses together.
	address, all rates
	// patience is the maximum time that a caller waits for its turn.
	patience time.Duration
	// reviews is the maximum number of concurrent reviews in each of three groups: known tokens, new tokens from known addresses, and
	// unknown callers.
	reviews int
	// knownFor is how long a token and its peer address count as known after the token was allowed.
	knownFor time.Duration
}

type rates struct {
	perSecond rate.Limit
	burst     int
}

// defaultLimits cause no noticeable load on the API server. An allowed caller is reviewed once a minute.
var defaultLimits = limits{
	address:  rates{10, 20},
	all:      rates{50, 100},
	patience: 2 * time.Second,
	reviews:  32,
	knownFor: time.Hour,
}

// addressBuckets is the number of rate limiters for addresses. Addresses share them by a hash that callers can't predict.
const addressBuckets = 1024

// gate decides when a caller is reviewed. Anybody can make up tokens, so the rate and the number of concurrent reviews of unknown
// callers are limited, in total and per address. Known callers do not wait for unknown ones: known tokens have reviews of their own,
// and new tokens from known addresses have a rate limit per address of their own, because tokens are renewed every hour.
type gate struct {
	limits    limits
	seed      maphash.Seed
	addresses [addressBuckets]*rate.Limiter
	all       *rate.Limiter

	known, renewed, strangers chan struct{} // hold one element per running review

	tokens *cache.LRUExpireCache // credentials that were allowed
	peers  *cache.LRUExpireCache // the peer addresses of these credentials, with their limiters
}

func newGate(limits limits, clock clock.PassiveClock) *gate {
	g := &gate{
		limits: limits, seed: maphash.MakeSeed(), all: rate.NewLimiter(limits.all.perSecond, limits.all.burst),
		known: make(chan struct{}, limits.reviews), renewed: make(chan struct{}, limits.reviews), strangers: make(chan struct{}, limits.reviews),
		tokens: cache.NewLRUExpireCacheWithClock(remembered, clock),
		peers:  cache.NewLRUExpireCacheWithClock(remembered, clock),
	}
	for i := range g.addresses {
		g.addresses[i] = g.newLimiter()
	}
	return g
}

func (g *gate) newLimiter() *rate.Limiter {
	return rate.NewLimiter(g.limits.address.perSecond, g.limits.address.burst)
}

func (g *gate) bucket(from netip.Addr) uint64 {
	return maphash.Comparable(g.seed, from) % addressBuckets
}

// know records a token and its peer address as known.
func (g *gate) know(asks credential, from netip.Addr) {
	g.tokens.Add(asks, nil, g.limits.knownFor)
	if !from.IsValid() {
		return
	}
	limiter, ok := g.peers.Get(from)
	if !ok {
		limiter = g.newLimiter()
	}
	g.peers.Add(from, limiter, g.limits.knownFor)
}

// enter waits for the caller's turn. If ok is true, leave must be called after the review. If ok is false, too many callers
// are waiting.
func (g *gate) enter(ctx context.Context, asks credential, from netip.Addr) (leave func(), ok bool) {
	if _, known := g.tokens.Get(asks); known {
		return occupy(ctx, g.known)
	}
	ctx, cancel := context.WithTimeout(ctx, g.limits.patience)
	defer cancel()
	if limiter, known := g.peers.Get(from); known {
		if limiter, isLimiter := limiter.(*rate.Limiter); !isLimiter || limiter.Wait(ctx) != nil {
			return nil, false
		}
		return occupy(ctx, g.renewed)
	}
	// Check the limit of the address first, so that an address above its limit does not use up the shared one.
	if g.addresses[g.bucket(from)].Wait(ctx) != nil || g.all.Wait(ctx) != nil {
		return nil, false
	}
	return occupy(ctx, g.strangers)
}

func occupy(ctx context.Context, slots chan struct{}) (leave func(), ok bool) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, true
	case <-ctx.Done():
		return nil, false
	}
}
