package index

import (
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// Object is an [Entry] in the form in which the index keeps it. It shares no memory with the entry. Many objects that wait for
// [Source.ReplaceObjects] take little more memory than in the index.
type Object struct {
	ID
	roles []string // sorted and unique
	first *entry   // without a set of roles; nil for a key without a token
}

// Indexed reports whether the object has a token.
func (o *Object) Indexed() bool { return o.first != nil }

// Object compacts an entry. The result may be passed to [Source.PutObject] or [Source.ReplaceObjects] once.
func (s *Source) Object(e Entry) *Object {
	text := e.Namespace + e.Name + e.UID
	inName, inUID := len(e.Namespace), len(e.Namespace)+len(e.Name)
	key := verify.Key{
		Namespace: text[:inName], Name: text[inName:inUID], UID: text[inUID:],
		Suspended: e.Suspended, Networks: s.shareNetworks(e.Networks), Attributes: e.Attributes,
	}
	o := &Object{ID: ID{Namespace: key.Namespace, Name: key.Name}}
	end := &o.first
	for _, c := range e.Credentials {
		if o.first.withDigest(c.Digest) != nil {
			continue
		}
		key.Deadline, key.Retiring, key.Use = c.Deadline, c.Retiring, &usage.Mark{}
		key.Use.Record(c.Recorded)
		*end = &entry{key: key, source: s, digest: c.Digest, created: e.Created.Unix()}
		end = &(*end).next
	}
	if o.first != nil {
		o.roles = s.shareRoles(e.Roles)
	}
	return o
}
