package feed

import (
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	sigsjson "sigs.k8s.io/json"
)

// all returns the events of a stream until it ends.
func all(t *testing.T, body io.Reader) []watch.Event {
	t.Helper()
	s := newStream(io.NopCloser(body), nil)
	defer s.Stop()
	var events []watch.Event
	limit := time.After(time.Minute)
	for {
		select {
		case event, open := <-s.ResultChan():
			if !open {
				return events
			}
			events = append(events, event)
		case <-limit:
			t.Fatal("the stream does not end")
		}
	}
}

func TestStream(t *testing.T) {
	key := string(issuedKey(t, 7))
	added := `{"type":"ADDED","object":` + key + `}`
	type types []watch.EventType
	for name, c := range map[string]struct {
		text string
		want types
	}{
		"nothing":                   {"", nil},
		"all types of events":       {added + "\n" + `{"type":"MODIFIED","object":` + key + `}{"type":"DELETED","object":` + key + `}`, types{watch.Added, watch.Modified, watch.Deleted}},
		"an object before its type": {`{"object":` + key + `,"type":"DELETED"}`, types{watch.Deleted}},
		"an unknown member":         {`{"more":[{}],"type":"ADDED","later":null,"object":` + key + `}`, types{watch.Added}},
		"an error":                  {`{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"reason":"Expired"}}`, types{watch.Error}},
		"an error, type last":       {`{"object":{"status":"Failure","code":410},"type":"ERROR"}`, types{watch.Error}},
		"the end within an event":   {added + added[:len(added)/2], types{watch.Added}},
		"the end before its object": {added + `{"type":"ADDED"`, types{watch.Added}},
		"an unknown type":           {added + `{"type":"RENAMED","object":{}}` + added, types{watch.Added, watch.Error}},
		"no object":                 {`{"type":"ADDED"}` + added, types{watch.Error}},
		"no event":                  {`[]` + added, types{watch.Error}},
		"no JSON":                   {added + "503 Service Unavailable", types{watch.Added, watch.Error}},
		"a field of another type":   {`{"type":"ADDED","object":{"spec":{"roles":"admin"}}}` + added, types{watch.Error}},
	} {
		events := all(t, strings.NewReader(c.text))
		got := make(types, 0, len(events))
		for _, event := range events {
			got = append(got, event.Type)
			switch o := event.Object.(type) {
			case *object:
				if event.Type == watch.Error || o.Metadata.Name != "key-7" {
					t.Errorf("%s: %s of %q", name, event.Type, o.Metadata.Name)
				}
			case *metav1.Status:
				if event.Type != watch.Error || o.Status != metav1.StatusFailure || o.Code != 410 && o.Code != 500 {
					t.Errorf("%s: %s with the status %+v", name, event.Type, o)
				}
			default:
				t.Errorf("%s: %T", name, event.Object)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Stop ends a read that waits for the next event, and a send for which nobody waits.
func TestStreamStops(t *testing.T) {
	reader, writer := io.Pipe()
	waiting := newStream(reader, nil)
	waiting.Stop()
	if event, open := <-waiting.ResultChan(); open {
		t.Errorf("got %s after Stop", event.Type)
	}
	if _, err := writer.Write([]byte("x")); err == nil {
		t.Error("the body is not closed")
	}
	sending := newStream(io.NopCloser(strings.NewReader(strings.Repeat(`{"type":"ADDED","object":{}}`, 10))), nil)
	<-sending.ResultChan()
	sending.Stop()
	sending.Stop()
	left := 0
	for range sending.ResultChan() {
		left++
	}
	if left > 1 {
		t.Errorf("%d events after Stop", left)
	}
}

// client-go decodes objects with this function, after it has found out their kind.
func decodeLikeClientGo(text []byte) (*object, error) {
	o := &object{}
	return o, sigsjson.UnmarshalCaseSensitivePreserveInts(text, o)
}

// What client-go decodes is decoded alike. What it refuses, such as a number for a string, is refused.
func FuzzObject(f *testing.F) {
	f.Add(issuedKey(f, 1))
	for _, text := range []string{
		`{}`, `{"metadata":null,"spec":{"roles":null,"cidrs":[],"secret":{},"suspend":null,"expiry":{"never":true}},"status":{"hash":""}}`,
		`{"metadata":{"creationTimestamp":null,"deletionTimestamp":"2027-01-31T00:00:00Z","annotations":{"k8s.io/initial-events-end":"true","x":"y"}}}`,
		`{"spec":{"Roles":["x"],"roles":["\u00e9\ud83d\ude00\u0000\ud800"]}}`, `{"status":{"observedGeneration":-1,"conditions":[{"type":"Ready","lastTransitionTime":"2027-01-31T00:00:00+01:00"}]}}`,
		`{"status":{"rotation":{"count":2,"retiring":{"hash":"x","retiresAt":"2027-01-31T00:00:00Z"},"pending":{"overlap":"1h"},"handledRequests":["a"]}}}`,
		`{"spec":{"roles":["a"],"roles":["b"]}}`, `{"status":{"observedGeneration":1.0}}`, `{"metadata":{"name":1}}`, `null`, `[]`, ` {"spec":{}} `,
		`{"status":{"rotation":{"count":1e1}}}`, `{"status":{"observedGeneration":99999999999999999999}}`, "{\"metadata\":{\"name\":\"\xff\"}}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want, wantErr := decodeLikeClientGo(text)
		got := &object{}
		err := json.Unmarshal(text, got, lenient)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("error %v, client-go's is %v", err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}
