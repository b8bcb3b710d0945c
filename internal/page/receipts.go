package page

import (
	"crypto/rand"
	"errors"
	"sync"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

// receipt is the claim of a browser on the token of a key that it has just created or rotated.
type receipt struct {
	key *v1alpha1.ApiKey
	// request is the request to rotate the key, or empty if the key is new.
	request string
	// workload says that the token stays in its Secret, for a workload.
	workload bool
	// secret is the Secret that the token was read from, without the token. It is empty until then.
	secret keys.Delivery
	// busy says that a request fetches the token now, and shown that one did.
	busy, shown bool
}

// receipts are all receipts of the session. They hold no token.
type receipts struct {
	mu   sync.Mutex
	byID map[string]*receipt
}

func newReceipts() *receipts { return &receipts{byID: map[string]*receipt{}} }

func (r *receipts) add(entry receipt) (id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id = rand.Text()
	r.byID[id] = &entry
	return id
}

// Why a receipt is not good for a token.
var (
	errNoReceipt = errors.New("this page did not create a key that is waiting for its token here")
	errShown     = errors.New("the token was shown before, and can't be shown again. If you don't have it, delete the key and add another one")
)

// get returns a copy of a receipt. The namespace and name must be those of its key.
func (r *receipts) get(id, namespace, name string) (receipt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.byID[id]
	if entry == nil || entry.key.Namespace != namespace || entry.key.Name != name {
		return receipt{}, errNoReceipt
	}
	return *entry, nil
}

// claim reserves the token for one request. The caller must call settle.
func (r *receipts) claim(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.byID[id]
	if entry.busy || entry.shown || entry.workload {
		return errShown
	}
	entry.busy = true
	return nil
}

// settle ends a claim. With a delivery, the token counts as shown.
func (r *receipts) settle(id string, delivery *keys.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.byID[id]
	entry.busy = false
	if delivery != nil {
		entry.shown = true
		entry.secret = keys.Delivery{Secret: delivery.Secret, UID: delivery.UID}
	}
}
