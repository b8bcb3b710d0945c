package main

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/apikey-operator/apikey-operator/test/torture/model"
)

// note records an event.
func (r *run) note(e model.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, e)
}

// open records that a fault has begun, and closeFault that it has ended.
func (r *run) open(f model.Fault) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, f)
	return len(r.history) - 1
}

func (r *run) closeFault(index int, f model.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history[index] = f
}

// fail records an error of this program itself.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

func (r *run) noteKey(k model.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.seen[k.UID]
	r.seen[k.UID] = k
	same := before
	same.At, same.Version = k.At, k.Version
	if known && fmt.Sprint(same) == fmt.Sprint(k) && same.Kept == k.Kept {
		return
	}
	r.history = append(r.history, k)
	r.learn(k.Digest)
}

func (r *run) noteToken(digest, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts[digest] = text
	r.learn(digest)
}

// learn makes requests use a token, once it was seen in a Secret and its digest in a status.
func (r *run) learn(digest string) {
	if r.texts[digest] == "" || slices.Contains(r.digests, digest) {
		return
	}
	for _, k := range r.seen {
		if k.Digest == digest {
			r.digests = append(r.digests, digest)
			return
		}
	}
}

func (r *run) last(uid string) (model.Key, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.seen[uid]
	return k, ok
}

// drawToken draws one of the newest tokens, or any.
func (r *run) drawToken(random *rand.Rand) (digest, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := 0
	if random.IntN(100) < 70 {
		from = max(0, len(r.digests)-30)
	}
	if len(r.digests) == 0 {
		return "", ""
	}
	digest = r.digests[from+random.IntN(len(r.digests)-from)]
	return digest, r.texts[digest]
}
