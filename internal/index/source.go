package index

import (
	"slices"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Source is a feed of keys, such as the watch of a namespace. Its methods must not be called concurrently.
// Two sources must not contain the same object.
type Source struct {
	feed
	entries map[ID]*entry // the first entry of each object
}

// entry is a credential of an object. The garbage collector scans all entries again and again, so each has
// few pointers: the entries of an object share one string, and keys share their sets of roles. Readers use
// entries without a lock, so an entry never changes, except for next, which readers don't use.
type entry struct {
	key     verify.Key
	source  *Source
	digest  token.Digest
	created int64  // Unix seconds, which is the resolution of Kubernetes
	next    *entry // next entry of the same object; guarded by Index.mu
}

func (e *entry) id() ID { return ID{Namespace: e.key.Namespace, Name: e.key.Name} }

// withDigest returns the entry of the object with the digest, or nil.
func (e *entry) withDigest(digest token.Digest) *entry {
	for e != nil && e.digest != digest {
		e = e.next
	}
	return e
}

// Source adds a feed of keys. Call it before the first read.
func (x *Index) Source() *Source {
	s := &Source{entries: map[ID]*entry{}}
	x.add(&s.feed)
	x.sources = append(x.sources, s)
	return s
}

// Forbidden records that the API server denies access to the objects of the source. From then on, the index
// doesn't wait for the source. Its keys are unknown until it is loaded.
func (s *Source) Forbidden() { s.settle() }

// Put adds or updates an object. Digests that the object keeps can be found throughout. Find returns the same
// [verify.Key] as before unless something changed that a decision depends on.
func (s *Source) Put(e Entry) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.put(e)
}

// Remove removes an object.
func (s *Source) Remove(id ID) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.remove(id)
}

// Replace sets the objects of the source, removes all others, and marks the feed as loaded.
func (s *Source) Replace(all []Entry) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	exists := make(map[ID]struct{}, len(all))
	for i := range all {
		exists[all[i].ID] = struct{}{}
	}
	// Revoke first, so that revocations don't wait for new keys.
	for id := range s.entries {
		if _, ok := exists[id]; !ok {
			s.remove(id)
		}
	}
	for i := range all {
		s.put(all[i])
	}
	s.markLoaded()
}

func (s *Source) put(e Entry) {
	if len(e.Credentials) == 0 {
		s.remove(e.ID)
		return
	}
	x, old := s.index, s.entries[e.ID]
	kept := old
	if old != nil && old.key.UID != e.UID {
		kept = nil // another object with the same name
	}
	// Revoke first.
	for o := old; o != nil; o = o.next {
		if kept == nil || !e.has(o.digest) {
			x.disown(o)
		}
	}
	key, created := newKey(&e, kept, x.roles.acquire(e.Roles)), e.Created.Unix()
	unchanged := kept.decidesLike(&key, created)
	var few [4]*entry
	entries := few[:0]
	for i, c := range e.Credentials {
		if e.first(c.Digest) != i {
			continue
		}
		before := kept.withDigest(c.Digest)
		if before != nil {
			before.key.Use.Record(c.Recorded)
			if unchanged && before.key.Deadline == c.Deadline && before.key.Retiring == c.Retiring {
				entries = append(entries, before)
				continue
			}
			key.Use = before.key.Use // an update of the object must not lose it
		} else {
			key.Use = &usage.Mark{}
			key.Use.Record(c.Recorded)
		}
		key.Deadline, key.Retiring = c.Deadline, c.Retiring
		added := &entry{key: key, source: s, digest: c.Digest, created: created}
		if before != nil {
			x.replace(before, added)
		} else {
			x.own(added)
		}
		entries = append(entries, added)
	}
	link(entries)
	if old != nil {
		x.roles.release(old.key.Roles)
	}
	if kept == nil {
		delete(s.entries, e.ID) // so that the map doesn't keep the string of the old object
	}
	s.entries[entries[0].id()] = entries[0]
}

// decidesLike reports whether the entry has all that decisions of an object with this key depend on, except for its credentials. It is
// false for nil.
func (e *entry) decidesLike(key *verify.Key, created int64) bool {
	return e != nil && e.created == created && e.key.Roles == key.Roles && e.key.Suspended == key.Suspended &&
		e.key.Attributes == key.Attributes && e.key.Networks.Equal(key.Networks)
}

// newKey returns the key for an object, without a deadline. It shares the string of the object's existing
// entry, if any.
func newKey(e *Entry, kept *entry, roles *access.Roles) verify.Key {
	key := verify.Key{Suspended: e.Suspended, Networks: e.Networks, Roles: roles, Attributes: e.Attributes}
	if kept != nil {
		key.Namespace, key.Name, key.UID = kept.key.Namespace, kept.key.Name, kept.key.UID
		return key
	}
	text := e.Namespace + e.Name + e.UID
	inName, inUID := len(e.Namespace), len(e.Namespace)+len(e.Name)
	key.Namespace, key.Name, key.UID = text[:inName], text[inName:inUID], text[inUID:]
	return key
}

// link chains the entries of an object.
func link(entries []*entry) {
	var next *entry
	for _, e := range slices.Backward(entries) {
		e.next, next = next, e
	}
}

// first returns the index of the first credential with the digest, or -1.
func (e *Entry) first(digest token.Digest) int {
	return slices.IndexFunc(e.Credentials, func(c Credential) bool { return c.Digest == digest })
}

func (e *Entry) has(digest token.Digest) bool { return e.first(digest) >= 0 }

func (s *Source) remove(id ID) {
	old := s.entries[id]
	if old == nil {
		return
	}
	delete(s.entries, id)
	for o := old; o != nil; o = o.next {
		s.index.disown(o)
	}
	s.index.roles.release(old.key.Roles)
}
