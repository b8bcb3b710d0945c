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

// limits of the reviews that callers can have the API server asked for.
type limits struct {
	// address is what one address may ask about tokens that are not known; all is what all addresses together may.
	address, all rates
	// patience is how long a caller waits for its turn.
	patience time.Duration
	// reviews is how many are made at a time: of known tokens, of others from where they came from, and of strangers, each.
	reviews int
	// knownFor is how long a token, and the address that it came from, have precedence after they were let in.
	knownFor time.Duration
}

type rates struct {
	perSecond rate.Limit
	burst     int
}

// The API server notices nothing of these rates. A caller that is let in asks it once a minute.
var defaultLimits = limits{
	address:  rates{10, 20},
	all:      rates{50, 100},
	patience: 2 * time.Second,
	reviews:  32,
	knownFor: time.Hour,
}

// addressBuckets bounds what is remembered of addresses. A stranger shares its bucket with one in so many; nobody can choose with whom.
const addressBuckets = 1024

// gate says whose turn it is to be reviewed. Everybody can make up tokens, so that strangers have a rate and a number of reviews at a time,
// in all and for each address. Callers that have been let in lately wait for none of them: a token of theirs has reviews of its own, and a
// new token from where they call, since tokens are renewed every hour, has the rate of its address to itself.
type gate struct {
	limits    limits
	seed      maphash.Seed
	addresses [addressBuckets]*rate.Limiter
	all       *rate.Limiter

	known, renewed, strangers chan struct{} // as long as the reviews that are under way

	tokens *cache.LRUExpireCache // credentials that were let in
	peers  *cache.LRUExpireCache // addresses that they came from, with their limiters
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

// know gives precedence to a token and an address from now on.
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

// enter waits until it is a caller's turn. leave must be called after its review; ok is false if too many others want theirs.
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
	// An address that has used up its own rate takes nothing of what the others share.
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
