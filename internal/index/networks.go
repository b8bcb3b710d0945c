package index

import (
	"hash/maphash"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// recentNetworks lets keys with the same networks share one copy of them. It only knows the networks that it has seen last, so
// that it takes little memory if each key has its own. Then a copy now and then does no harm.
type recentNetworks struct {
	seed   maphash.Seed
	recent []access.Networks // at the hash
}

const maxRecent = 1 << 10

func newRecentNetworks() recentNetworks {
	return recentNetworks{maphash.MakeSeed(), make([]access.Networks, maxRecent)}
}

// share returns networks that are equal to n.
func (r *recentNetworks) share(n access.Networks) access.Networks {
	at := &r.recent[maphash.Comparable(r.seed, n)%maxRecent]
	if *at != n {
		*at = n
	}
	return *at
}

func (s *Source) shareNetworks(n access.Networks) access.Networks {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return s.index.networks.share(n)
}
