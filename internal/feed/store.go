package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/facts"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// store is the store of a reflector for ApiKeys. It doesn't keep objects, but writes each to the index at
// once.
type store struct {
	source   *index.Source
	logger   logr.Logger
	replaced func()
}

// fact is what remains of an ApiKey: its entry in the index, and whether it belongs there at all.
type fact struct {
	metav1.TypeMeta
	entry   index.Entry
	indexed bool
}

// DeepCopyObject implements [runtime.Object], so that facts can be items of a list.
func (f *fact) DeepCopyObject() runtime.Object {
	c := *f
	return &c
}

// list reads a page of a list and converts its objects to facts at once. A reflector that lists in pages collects all of them.
func (s *store) list(ctx context.Context, request *rest.Request) (runtime.Object, error) {
	text, err := request.Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	page, err := readList(text)
	if err != nil {
		return nil, err
	}
	return s.condense(page), nil
}

// watch follows changes. The result decodes events as [store.list] does lists.
func (s *store) watch(ctx context.Context, request *rest.Request) (watch.Interface, error) {
	body, err := request.Stream(ctx)
	if err != nil {
		return nil, err
	}
	return newStream(body), nil
}

// condense converts a page of objects to facts.
func (s *store) condense(page *objectList) *factList {
	facts := &factList{ListMeta: page.ListMeta, Items: make([]fact, len(page.Items))}
	for i := range page.Items {
		facts.Items[i] = *s.understand(page.Items[i].key())
	}
	return facts
}

// Transformer implements [cache.TransformingStore], so that a reflector collects facts and not objects while
// it loads.
func (s *store) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return s.factOf(object) }
}

// Add implements [cache.ReflectorStore].
func (s *store) Add(object any) error { return s.Update(object) }

// Update implements [cache.ReflectorStore].
func (s *store) Update(object any) error {
	f, err := s.factOf(object)
	if err != nil {
		return err
	}
	if f.indexed {
		s.source.Put(f.entry)
	} else {
		s.source.Remove(f.entry.ID)
	}
	return nil
}

// Delete implements [cache.ReflectorStore].
func (s *store) Delete(object any) error {
	f, err := s.factOf(object)
	if err != nil {
		return err
	}
	s.source.Remove(f.entry.ID)
	return nil
}

// Replace implements [cache.ReflectorStore].
func (s *store) Replace(objects []any, _ string) error {
	entries := make([]index.Entry, 0, len(objects))
	for _, object := range objects {
		f, err := s.factOf(object)
		if err != nil {
			return err
		}
		if f.indexed {
			entries = append(entries, f.entry)
		}
	}
	s.source.Heard(time.Now())
	s.source.Replace(entries)
	s.replaced()
	return nil
}

// Resync implements [cache.ReflectorStore].
func (s *store) Resync() error { return nil }

// UpdateResourceVersion implements [cache.ResourceVersionUpdater]. The reflector calls it for every event,
// and for the bookmarks that the API server sends once a minute if nothing happens.
func (s *store) UpdateResourceVersion(string) { s.source.Heard(time.Now()) }

func (s *store) factOf(what any) (*fact, error) {
	switch o := what.(type) {
	case *fact:
		return o, nil
	case *object:
		return s.understand(o.key()), nil
	default:
		return nil, fmt.Errorf("watch of ApiKeys returned a %T", what)
	}
}

// understand converts an ApiKey. It logs fields that can't be read, and the key is then refused. The schema
// of the CRD rejects such objects, so this happens only if it was changed.
func (s *store) understand(key *v1alpha1.ApiKey) *fact {
	f := &fact{entry: index.Entry{ID: index.ID{Namespace: key.Namespace, Name: key.Name}}}
	if !facts.Record(key).Findable() {
		return f
	}
	unreadable := func(field string, err error) {
		s.logger.Error(err, "API key refused because a field of its ApiKey can't be read", "namespace", key.Namespace, "name", key.Name, "field", field)
	}
	credentials, err := facts.Credentials(key)
	if err != nil {
		unreadable("spec.expiry", err)
	}
	for _, c := range credentials {
		digest, err := token.ParseDigest(c.Hash)
		if err != nil {
			unreadable(c.Field, err)
			continue
		}
		f.entry.Credentials = append(f.entry.Credentials, index.Credential{
			Digest: digest, Deadline: c.Deadline, Retiring: c.Retiring, Recorded: c.Recorded,
		})
	}
	if len(f.entry.Credentials) == 0 {
		return f
	}
	f.indexed = true
	f.entry.UID = string(key.UID)
	f.entry.Created = key.CreationTimestamp.Time
	f.entry.Roles = s.source.Share(key.Spec.Roles)
	f.entry.Suspended = key.IsSuspended()
	f.entry.Networks = access.AnyNetwork()
	if len(key.Spec.CIDRs) > 0 {
		if f.entry.Networks, err = access.ParseNetworks(key.Spec.CIDRs); err != nil {
			unreadable("spec.cidrs", err)
		}
	}
	if f.entry.Attributes, err = verify.NewAttributes(key.Attributes()); err != nil {
		unreadable("spec.attributes", err)
		f.entry.Networks = access.Networks{} // which contain no address, so that nobody is let in without the attributes
	}
	return f
}
