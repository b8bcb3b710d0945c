package feed

import (
	"fmt"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// store is what a reflector writes to. It holds no objects: each becomes an entry of the index at once.
type store struct {
	source   *index.Source
	logger   logr.Logger
	replaced func()
}

// fact is what remains of an object: its entry, and whether it counts at all.
type fact struct {
	metav1.TypeMeta
	entry  index.Entry
	counts bool
}

// DeepCopyObject implements runtime.Object, so that lists of facts can be made.
func (f *fact) DeepCopyObject() runtime.Object {
	c := *f
	return &c
}

// condense makes facts of a page of objects.
func (s *store) condense(list runtime.Object) (runtime.Object, error) {
	page, ok := list.(*objectList)
	if !ok {
		return nil, fmt.Errorf("a %T where ApiKeys are listed", list)
	}
	facts := &factList{ListMeta: page.ListMeta, Items: make([]fact, len(page.Items))}
	for i := range page.Items {
		facts.Items[i] = *s.understand(page.Items[i].key())
	}
	return facts, nil
}

// Transformer implements cache.TransformingStore: what a reflector collects while it loads is facts already, not objects.
func (s *store) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return s.factOf(object) }
}

// Add implements cache.ReflectorStore.
func (s *store) Add(object any) error { return s.Update(object) }

// Update implements cache.ReflectorStore.
func (s *store) Update(object any) error {
	f, err := s.factOf(object)
	if err != nil {
		return err
	}
	if f.counts {
		s.source.Put(f.entry)
	} else {
		s.source.Remove(f.entry.ID)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *store) Delete(object any) error {
	f, err := s.factOf(object)
	if err != nil {
		return err
	}
	s.source.Remove(f.entry.ID)
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *store) Replace(objects []any, _ string) error {
	entries := make([]index.Entry, 0, len(objects))
	for _, object := range objects {
		f, err := s.factOf(object)
		if err != nil {
			return err
		}
		if f.counts {
			entries = append(entries, f.entry)
		}
	}
	s.source.Heard(time.Now())
	s.source.Replace(entries)
	s.replaced()
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *store) Resync() error { return nil }

// UpdateResourceVersion implements cache.ResourceVersionUpdater: it is called for every event, and for the bookmarks that an API
// server sends once a minute when nothing happens.
func (s *store) UpdateResourceVersion(string) { s.source.Heard(time.Now()) }

func (s *store) factOf(what any) (*fact, error) {
	switch o := what.(type) {
	case *fact:
		return o, nil
	case *object:
		return s.understand(o.key()), nil
	default:
		return nil, fmt.Errorf("a %T where ApiKeys are watched", what)
	}
}

// understand translates an ApiKey. What can't be read of one opens nothing, and is logged; the schema of the CRD lets no such
// object in.
func (s *store) understand(key *v1alpha1.ApiKey) *fact {
	f := &fact{entry: index.Entry{ID: index.ID{Namespace: key.Namespace, Name: key.Name}}}
	if !facts.Record(key).Findable() {
		return f
	}
	unreadable := func(field string, err error) {
		s.logger.Error(err, "key is refused: a field can't be read", "namespace", key.Namespace, "name", key.Name, "field", field)
	}
	digest, err := token.ParseDigest(key.Status.Hash)
	if err != nil {
		unreadable("status.hash", err)
		return f
	}
	f.counts = true
	f.entry.UID = string(key.UID)
	f.entry.Created = key.CreationTimestamp.Time
	f.entry.Roles = s.source.Share(key.Spec.Roles)
	dead, err := facts.AcceptedUntil(key)
	if err != nil {
		unreadable("spec.expiry", err)
	}
	f.entry.Credentials = []index.Credential{{Digest: digest, Deadline: dead}}
	f.entry.Suspended = key.IsSuspended()
	f.entry.Networks = access.AnyNetwork()
	if len(key.Spec.CIDRs) > 0 {
		if f.entry.Networks, err = access.ParseNetworks(key.Spec.CIDRs); err != nil {
			unreadable("spec.cidrs", err)
		}
	}
	return f
}
