package index

import (
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Used calls f for each token that was used since the index was created. It doesn't hold up readers: it copies the entries of
// one shard at a time, and f is called without a lock. Tokens that are added meanwhile may be missing.
func (x *Index) Used(f func(key *verify.Key, digest *token.Digest)) {
	var entries []*entry
	for i := range x.shards {
		s := &x.shards[i]
		entries = entries[:0]
		s.mu.RLock()
		for _, e := range s.keys {
			entries = append(entries, e)
		}
		s.mu.RUnlock()
		for _, e := range entries {
			if e.key.Use.Used() != 0 {
				f(&e.key, &e.digest)
			}
		}
	}
}
