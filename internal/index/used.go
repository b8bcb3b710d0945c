package index

import (
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Used calls f for each token that was used since the index was created. It doesn't hold up readers or writers. Tokens that are
// added meanwhile may be missing.
func (x *Index) Used(f func(key *verify.Key, digest *token.Digest)) {
	for e := range x.byDigest.all {
		if e.key.Use.Used() != 0 {
			f(&e.key, &e.digest)
		}
	}
}
