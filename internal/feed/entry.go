package feed

import (
	"github.com/go-logr/logr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/index"
)

// EntryOf returns the entry that a verifier has in its index for an ApiKey, or false if it has none. The logger receives fields that
// can't be read.
func EntryOf(key *v1alpha1.ApiKey, logger logr.Logger) (index.Entry, bool) {
	e := entryOf(key, logger)
	return e, len(e.Credentials) > 0
}
