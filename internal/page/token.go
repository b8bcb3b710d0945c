package page

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

// confirmation is the data of the view that shows the token of a key.
type confirmation struct {
	Base, Receipt   string
	Key             *v1alpha1.ApiKey
	Expires         *moment
	Never           bool
	Lasts           string
	Secret, DataKey string
	Workload, Shown bool
	Rotated         bool
}

// showReceipt shows the view of a new token. Its HTML does not hold the token, which the script fetches once.
func (p *page) showReceipt(w http.ResponseWriter, r *http.Request) {
	namespace, name, id := r.PathValue("namespace"), r.PathValue("name"), r.PathValue("receipt")
	entry, err := p.receipts.get(id, namespace, name)
	if err != nil {
		p.show(w, r, http.StatusNotFound, shell{Title: name, View: "problem", Data: map[string]string{"Title": "There is nothing to show", "Text": err.Error() + "."}})
		return
	}
	k := p.rowOf(entry.key, p.now())
	p.show(w, r, http.StatusOK, shell{Title: name, View: "token", Data: confirmation{
		Base: p.gate.Path(), Receipt: id, Key: entry.key, Expires: k.Expires, Never: k.Never, Lasts: k.Lasts,
		Secret: entry.key.SecretName(), DataKey: entry.key.SecretKey(),
		Workload: entry.workload, Shown: entry.shown, Rotated: entry.request != "",
	}})
}

// handOver waits for the token of a receipt and sends it, once.
func (p *page) handOver(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("receipt")
	entry, err := p.receipts.get(id, r.PathValue("namespace"), r.PathValue("name"))
	if err == nil {
		err = p.receipts.claim(id)
	}
	if err != nil {
		http.Error(w, sentence(err), http.StatusGone)
		return
	}
	delivery, err := p.receive(r.Context(), entry)
	if err != nil {
		p.receipts.settle(id, nil)
		p.undelivered(w, entry, err)
		return
	}
	p.receipts.settle(id, &delivery)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"token": delivery.Token.Reveal()}) // a browser that is gone has not seen it
}

// receive waits until the token of a receipt is in its Secret, and reads it.
func (p *page) receive(ctx context.Context, entry receipt) (keys.Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	ignore := func(*v1alpha1.ApiKey) {}
	var key *v1alpha1.ApiKey
	var err error
	if entry.request == "" {
		key, err = p.Cluster.AwaitIssued(ctx, entry.key, ignore)
	} else {
		key, err = p.Cluster.AwaitRotated(ctx, entry.key, entry.request, ignore)
	}
	if err != nil {
		return keys.Delivery{}, err
	}
	return p.Cluster.Token(ctx, key)
}

// undelivered says why there is no token. After 202 the browser asks again.
func (p *page) undelivered(w http.ResponseWriter, entry receipt, err error) {
	var late *keys.TimeoutError
	switch {
	case errors.As(err, &late) && late.Cause == nil && entry.request == "":
		http.Error(w, keys.WaitsFor(late.Key), http.StatusAccepted)
	case errors.As(err, &late) && late.Cause == nil && late.Key != nil:
		http.Error(w, keys.WaitsToRotate(late.Key, p.now()), http.StatusAccepted)
	case errors.Is(err, keys.ErrDeleted), errors.Is(err, keys.ErrExpired), errors.Is(err, keys.ErrNoDelivery):
		http.Error(w, sentence(err), http.StatusGone)
	default:
		http.Error(w, p.Explain(err), codeOf(err))
	}
}

// takeAway deletes the Secret whose token the user says to have.
func (p *page) takeAway(w http.ResponseWriter, r *http.Request) {
	namespace, name, id := r.PathValue("namespace"), r.PathValue("name"), r.PathValue("receipt")
	entry, err := p.receipts.get(id, namespace, name)
	if err != nil || entry.workload || entry.secret.Secret == "" {
		http.Error(w, sentence(errNoReceipt), http.StatusGone)
		return
	}
	if err := p.Cluster.TakeAway(r.Context(), namespace, entry.secret); err != nil {
		http.Error(w, "The key works, but its Secret "+entry.secret.Secret+" could not be deleted: "+p.Explain(err), codeOf(err))
		return
	}
	p.goTo(w, "keys/"+namespace+"/"+name+"/")
}

// sentence writes an error as a sentence.
func sentence(err error) string {
	text := err.Error()
	return string(text[0]-'a'+'A') + text[1:] + "."
}
