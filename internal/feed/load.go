package feed

import (
	"slices"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/index"
)

// load collects the objects with which a streaming list begins. A reflector would collect them in a store of its own, which takes
// more memory than the index, and copy them to the index in the end. It only gets the bookmark that ends the load.
type load struct {
	store   *store
	objects []*index.Object // in the order of their events
	changed bool            // an object may occur more than once
	ended   bool
}

// take collects an event, or reports that the reflector needs it.
func (l *load) take(event watch.Event) (taken bool) {
	if !l.partial() {
		return false
	}
	o, ok := event.Object.(*object)
	if !ok {
		return false
	}
	switch event.Type {
	case watch.Added, watch.Modified, watch.Deleted:
		key := o.key()
		if event.Type == watch.Deleted {
			key.Status = v1alpha1.ApiKeyStatus{} // without a digest, the index has no entry
		}
		l.objects = append(l.objects, l.store.understand(key))
		l.changed = l.changed || event.Type != watch.Added
		return true
	default:
		if o.Metadata.Annotations.InitialEventsEnd == "true" {
			l.end()
		}
		return false
	}
}

// partial reports whether objects are missing.
func (l *load) partial() bool { return l != nil && !l.ended }

// end hands the objects to the store. Of each it keeps the last, so that a key that was deleted meanwhile is not accepted for a moment.
func (l *load) end() {
	l.ended = true
	if l.changed {
		last := make(map[index.ID]*index.Object, len(l.objects))
		for _, o := range l.objects {
			last[o.ID] = o
		}
		l.objects = slices.DeleteFunc(l.objects, func(o *index.Object) bool { return last[o.ID] != o })
	}
	l.store.loaded, l.objects = l.objects, nil
}
