package keys

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// Kind says which of a key's tokens a digest belongs to.
type Kind string

// The tokens that a key can have.
const (
	// Current is the token of the last issue or rotation.
	Current Kind = "current"
	// Pending is the token of a rotation that is in progress.
	Pending Kind = "pending"
	// Retiring is the token before the last rotation. It is accepted for a while.
	Retiring Kind = "retiring"
)

// Match is a key that has a token.
type Match struct {
	Key  v1alpha1.ApiKey
	Kind Kind
}

// Search is where keys were looked for.
type Search struct {
	// Namespace is the namespace that was searched, or empty for all.
	Namespace string
	// Narrowed says that the user may not list the keys of all namespaces, so that only one was searched.
	Narrowed bool
}

// digests returns the digests of a key.
func digests(key *v1alpha1.ApiKey) map[string]Kind {
	all := map[string]Kind{}
	if pending := key.PendingToken(); pending != nil {
		all[pending.Hash] = Pending
	}
	if retiring := key.RetiringToken(); retiring != nil {
		all[retiring.Hash] = Retiring
	}
	all[key.Status.Hash] = Current
	return all
}

// Find returns the keys that have one of the digests, by the digest. It searches a namespace, or all of them if it is empty. If the user may
// not list all, it searches the namespace fallback.
func (c *Cluster) Find(ctx context.Context, namespace, fallback string, wanted ...token.Digest) (map[token.Digest][]Match, Search, error) {
	texts := make(map[string]token.Digest, len(wanted))
	for _, digest := range wanted {
		texts[digest.String()] = digest
	}
	found := map[token.Digest][]Match{}
	visit := func(keys []v1alpha1.ApiKey) error {
		for i := range keys {
			for text, kind := range digests(&keys[i]) {
				if digest, ok := texts[text]; ok {
					found[digest] = append(found[digest], Match{Key: *withKind(keys[i].DeepCopy()), Kind: kind})
				}
			}
		}
		return nil
	}
	search := Search{Namespace: namespace}
	err := c.EachPage(ctx, namespace, "", visit)
	if namespace == "" && apierrors.IsForbidden(err) {
		search = Search{Namespace: fallback, Narrowed: true}
		err = c.EachPage(ctx, fallback, "", visit)
	}
	return found, search, err
}
