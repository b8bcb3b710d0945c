package feed

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
)

// Loading a large cluster is decoding: client-go reads each event of a watch five times, to find its end, its type, its object, the
// kind of that and its fields. This file reads it once. A fuzz test compares the result with that of client-go.

// lenient are the options under which the same text is accepted as by client-go.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// stream is a watch of ApiKeys that decodes events straight from the response of the API server.
type stream struct {
	body   io.ReadCloser
	events chan watch.Event
	stop   func() // closes done
	done   chan struct{}
	load   *load // nil unless the watch starts with a load that is not complete yet
}

// newStream returns a watch that reads body until it ends or Stop is called, and closes it. If load is not nil, it takes the
// events of the load.
func newStream(body io.ReadCloser, load *load) watch.Interface {
	s := &stream{body: body, events: make(chan watch.Event), done: make(chan struct{}), load: load}
	s.stop = sync.OnceFunc(func() { close(s.done) })
	go s.read()
	return s
}

// ResultChan implements [watch.Interface].
func (s *stream) ResultChan() <-chan watch.Event { return s.events }

// Stop implements [watch.Interface].
func (s *stream) Stop() {
	s.stop()
	_ = s.body.Close() // ends a read in progress
}

func (s *stream) read() {
	defer close(s.events)
	defer s.Stop()
	decoder := jsontext.NewDecoder(s.body, lenient)
	for {
		event, err := readEvent(decoder)
		switch ends := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || net.IsProbableEOF(err); {
		case s.stopped():
			return
		case ends && !s.load.partial():
			return // the reflector watches again from where it is
		case ends:
			event = watch.Event{Type: watch.Error, Object: endedEarly()}
		case err != nil:
			event = watch.Event{Type: watch.Error, Object: unreadable(err)}
		}
		if s.load.take(event) {
			continue
		}
		select {
		case <-s.done:
			return
		case s.events <- event:
		}
		if err != nil {
			return
		}
	}
}

func (s *stream) stopped() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// endedEarly returns the status for a streaming list that ends before it is complete. With an error, a reflector reads a list in pages. Without
// one, it would start another streaming list, and the API server may end that as well: it does so when too many ApiKeys change meanwhile.
func endedEarly() runtime.Object {
	status := apierrors.NewTimeoutError("the streaming list of ApiKeys ended before it was complete", 0).Status()
	return &status
}

// unreadable returns the status with which client-go reports an event that can't be decoded.
func unreadable(err error) runtime.Object {
	reporter := apierrors.NewClientErrorReporter(http.StatusInternalServerError, http.MethodGet, "ClientWatchDecoding")
	return reporter.AsObject(fmt.Errorf("unable to decode an event from the watch stream: %w", err))
}

// readEvent reads an event of a watch. The error is io.EOF if there is none left.
func readEvent(decoder *jsontext.Decoder) (watch.Event, error) {
	var event watch.Event
	var early jsontext.Value // an object that comes before its type
	if err := enter(decoder); err != nil {
		return event, err
	}
	for decoder.PeekKind() != '}' {
		name, err := decoder.ReadToken()
		if err != nil {
			return event, noEOF(err)
		}
		switch member := name.String(); {
		case member == "type":
			err = json.UnmarshalDecode(decoder, &event.Type)
		case member == "object" && event.Type == "":
			early, err = decoder.ReadValue()
			early = early.Clone()
		case member == "object":
			event.Object, err = readObject(event.Type, func(out any) error { return json.UnmarshalDecode(decoder, out) })
		default:
			err = decoder.SkipValue()
		}
		if err != nil {
			return event, noEOF(err)
		}
	}
	if _, err := decoder.ReadToken(); err != nil {
		return event, noEOF(err)
	}
	var err error
	if event.Object == nil && early != nil {
		event.Object, err = readObject(event.Type, func(out any) error { return json.Unmarshal(early, out, lenient) })
	}
	if err == nil && event.Object == nil {
		err = errors.New("it has no object")
	}
	return event, err
}

// enter reads the beginning of an event.
func enter(decoder *jsontext.Decoder) error {
	token, err := decoder.ReadToken()
	if err == nil && token.Kind() != '{' {
		err = errors.New("it is not an object")
	}
	return err
}

// noEOF returns an error that is not io.EOF, because the stream ends within an event.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readObject decodes the object of an event of a type.
func readObject(eventType watch.EventType, decode func(any) error) (runtime.Object, error) {
	switch eventType {
	case watch.Added, watch.Modified, watch.Deleted, watch.Bookmark:
		o := &object{}
		return o, decode(o)
	case watch.Error:
		status := &metav1.Status{}
		return status, decode(status)
	default:
		return nil, fmt.Errorf("it has the unknown type %q", eventType)
	}
}

// readPage decodes a page of a list of ApiKeys. It converts each object to a fact before it reads the next one, because a page can be
// hundreds of times the size of its facts.
func (s *store) readPage(body io.Reader) (*factList, error) {
	convert := json.UnmarshalFromFunc(func(decoder *jsontext.Decoder, f *fact) error {
		o := &object{}
		if err := json.UnmarshalDecode(decoder, o); err != nil {
			return err
		}
		f.object = s.understand(o.key())
		return nil
	})
	page := &factList{}
	if err := json.UnmarshalRead(body, page, lenient, json.WithUnmarshalers(convert)); err != nil {
		return nil, fmt.Errorf("decode a list of ApiKeys: %w", err)
	}
	return page, nil
}
