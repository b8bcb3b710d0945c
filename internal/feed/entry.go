package feed

import (
	"github.com/go-logr/logr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/index"
)

// EntryOf returns the entry that a verifier has in its index for an ApiKey, for the given source, or false if it has none. The logger
// receives fields that can't be read.
func EntryOf(source *index.Source, key *v1alpha1.ApiKey, logger logr.Logger) (index.Entry, bool) {
	f := (&store{source: source, logger: logger}).understand(key)
	return f.entry, f.indexed
}
