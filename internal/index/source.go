package index

import (
	"slices"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Source is a feed of keys, such as the watch of a namespace. Its methods must not be called concurrently.
// Two sources must not contain the same object.
type Source struct {
	feed
	entries *table // the first entry of each object
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
	s := &Source{entries: newIDTable()}
	x.add(&s.feed)
	x.sources = append(x.sources, s)
	return s
}

// Forbidden records that the API server denies access to the objects of the source. From then on, the index
// doesn't wait for the source. Its keys are unknown until it is loaded.
func (s *Source) Forbidden() { s.settle() }

// Put adds or updates an object. Digests that the object keeps can be found throughout. Find returns the same
// [verify.Key] as before unless something changed that a decision depends on.
func (s *Source) Put(e Entry) { s.PutObject(s.Object(e)) }

// PutObject is [Source.Put] for an entry that was compacted before.
func (s *Source) PutObject(o *Object) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.put(o)
}

// Remove removes an object.
func (s *Source) Remove(id ID) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.remove(id)
}

// Replace sets the objects of the source, removes all others, and marks the feed as loaded.
func (s *Source) Replace(all []Entry) {
	objects := make([]*Object, len(all))
	for i := range all {
		objects[i] = s.Object(all[i])
	}
	s.ReplaceObjects(objects)
}

// ReplaceObjects is [Source.Replace] for entries that were compacted before.
func (s *Source) ReplaceObjects(all []*Object) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	// Revoke first, so that revocations don't wait for new keys.
	if s.entries.size > 0 {
		exists := make(map[ID]struct{}, len(all))
		for _, o := range all {
			if o.Indexed() {
				exists[o.ID] = struct{}{}
			}
		}
		for first := range s.entries.all {
			if _, ok := exists[first.id()]; !ok {
				s.remove(first.id())
			}
		}
	}
	s.entries.reserve(len(all))
	s.index.byDigest.reserve(len(all))
	for _, o := range all {
		s.put(o)
	}
	s.markLoaded()
}

func (s *Source) put(o *Object) {
	if o.first == nil {
		s.remove(o.ID)
		return
	}
	x, old := s.index, s.entries.withID(o.ID)
	kept := old
	if old != nil && old.key.UID != o.first.key.UID {
		kept = nil // another object with the same name
	}
	// Revoke first.
	for e := old; e != nil; e = e.next {
		if kept == nil || o.first.withDigest(e.digest) == nil {
			x.disown(e)
		}
	}
	roles := x.roles.acquire(o.roles)
	unchanged := kept.decidesLike(o.first, roles)
	var few [4]*entry
	entries := few[:0]
	for e := o.first; e != nil; e = e.next {
		if kept != nil { // one string for all entries of the object
			e.key.Namespace, e.key.Name, e.key.UID = kept.key.Namespace, kept.key.Name, kept.key.UID
		}
		before := kept.withDigest(e.digest)
		if before == nil {
			e.key.Roles = roles
			x.own(e)
			entries = append(entries, e)
			continue
		}
		before.key.Use.Record(e.key.Use.Recorded())
		if unchanged && before.key.Deadline == e.key.Deadline && before.key.Retiring == e.key.Retiring {
			entries = append(entries, before)
			continue
		}
		e.key.Roles = roles
		e.key.Use = before.key.Use // an update of the object must not lose it
		x.replace(before, e)
		entries = append(entries, e)
	}
	link(entries)
	switch first := entries[0]; {
	case old == nil:
		s.entries.insert(first)
	case old != first:
		s.entries.replace(old, first)
	}
	if old != nil {
		x.roles.release(old.key.Roles)
	}
}

// decidesLike reports whether the entry has all that decisions of an object with this entry and these roles depend on, except for its
// credentials. It is false for nil.
func (e *entry) decidesLike(other *entry, roles *access.Roles) bool {
	return e != nil && e.created == other.created && e.key.Roles == roles && e.key.Suspended == other.key.Suspended &&
		e.key.Attributes == other.key.Attributes && e.key.Networks == other.key.Networks
}

// link chains the entries of an object.
func link(entries []*entry) {
	var next *entry
	for _, e := range slices.Backward(entries) {
		e.next, next = next, e
	}
}

func (s *Source) remove(id ID) {
	old := s.entries.withID(id)
	if old == nil {
		return
	}
	s.entries.remove(old)
	for e := old; e != nil; e = e.next {
		s.index.disown(e)
	}
	s.index.roles.release(old.key.Roles)
}
