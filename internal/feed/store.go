package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

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
	source *index.Source
	logger logr.Logger
	// read is called when a load has been read, and replaced when it is in the index.
	read, replaced func()
	// loaded are the objects of a streaming list that has just ended. The reflector then calls Replace with an empty list.
	loaded []*index.Object
}

// fact is what the index keeps of an ApiKey, as an item of a list.
type fact struct{ object *index.Object }

// GetObjectKind implements [runtime.Object].
func (*fact) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements [runtime.Object]. The copy is shallow, because this package doesn't modify objects.
func (f *fact) DeepCopyObject() runtime.Object {
	c := *f
	return &c
}

// list reads a page of a list.
func (s *store) list(ctx context.Context, request *rest.Request) (runtime.Object, error) {
	body, err := request.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // only read
	return s.readPage(body)
}

// watch follows changes. The result decodes events as [store.list] does lists. initial says that it starts with a streaming list.
func (s *store) watch(ctx context.Context, request *rest.Request, initial bool) (watch.Interface, error) {
	body, err := request.Stream(ctx)
	if err != nil {
		return nil, err
	}
	if initial {
		return newStream(body, &load{store: s}), nil
	}
	return newStream(body, nil), nil
}

// Add implements [cache.ReflectorStore].
func (s *store) Add(what any) error { return s.Update(what) }

// Update implements [cache.ReflectorStore].
func (s *store) Update(what any) error {
	o, err := s.objectOf(what)
	if err != nil {
		return err
	}
	s.source.PutObject(o)
	return nil
}

// Delete implements [cache.ReflectorStore].
func (s *store) Delete(what any) error {
	o, err := s.objectOf(what)
	if err != nil {
		return err
	}
	s.source.Remove(o.ID)
	return nil
}

// Replace implements [cache.ReflectorStore].
func (s *store) Replace(list []any, _ string) error {
	objects := s.loaded
	s.loaded = nil
	for _, what := range list {
		o, err := s.objectOf(what)
		if err != nil {
			return err
		}
		objects = append(objects, o)
	}
	s.read()
	s.source.Heard(time.Now())
	s.source.ReplaceObjects(objects)
	s.replaced()
	return nil
}

// Resync implements [cache.ReflectorStore].
func (s *store) Resync() error { return nil }

// UpdateResourceVersion implements [cache.ResourceVersionUpdater]. The reflector calls it for every event,
// and for the bookmarks that the API server sends once a minute if nothing happens.
func (s *store) UpdateResourceVersion(string) { s.source.Heard(time.Now()) }

func (s *store) objectOf(what any) (*index.Object, error) {
	switch o := what.(type) {
	case *fact:
		return o.object, nil
	case *object:
		return s.understand(o.key()), nil
	default:
		return nil, fmt.Errorf("watch of ApiKeys returned a %T", what)
	}
}

func (s *store) understand(key *v1alpha1.ApiKey) *index.Object {
	return s.source.Object(entryOf(key, s.logger))
}

// entryOf converts an ApiKey. It logs fields that can't be read, and the key is then refused. The schema
// of the CRD rejects such objects, so this happens only if it was changed.
func entryOf(key *v1alpha1.ApiKey, logger logr.Logger) index.Entry {
	e := index.Entry{ID: index.ID{Namespace: key.Namespace, Name: key.Name}}
	if !facts.Record(key).Findable() {
		return e
	}
	unreadable := func(field string, err error) {
		logger.Error(err, "API key refused because a field of its ApiKey can't be read", "namespace", key.Namespace, "name", key.Name, "field", field)
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
		e.Credentials = append(e.Credentials, index.Credential{
			Digest: digest, Deadline: c.Deadline, Retiring: c.Retiring, Recorded: c.Recorded,
		})
	}
	if len(e.Credentials) == 0 {
		return e
	}
	e.UID = string(key.UID)
	e.Created = key.CreationTimestamp.Time
	e.Roles = key.Spec.Roles
	e.Suspended = key.IsSuspended()
	e.Networks = access.AnyNetwork()
	if len(key.Spec.CIDRs) > 0 {
		if e.Networks, err = access.ParseNetworks(key.Spec.CIDRs); err != nil {
			unreadable("spec.cidrs", err)
		}
	}
	if e.Attributes, err = verify.NewAttributes(key.Attributes()); err != nil {
		unreadable("spec.attributes", err)
		e.Networks = access.Networks{} // which contain no address, so that nobody is let in without the attributes
	}
	return e
}
