package feed

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// A streaming list is collected until its end, with what changes meanwhile. The reflector gets the rest.
func TestStreamingListIsCollected(t *testing.T) {
	x := index.New(time.Now(), index.Options{})
	s := &store{source: x.Source(), read: func() {}, replaced: func() {}}
	other := strings.ReplaceAll(string(issuedKey(t, 1)), fmt.Sprintf("%064x", 1), fmt.Sprintf("%064x", 11))
	var text strings.Builder
	for _, event := range []struct{ kind, object string }{
		{"ADDED", string(issuedKey(t, 1))}, {"ADDED", string(issuedKey(t, 2))}, {"ADDED", string(issuedKey(t, 3))},
		{"BOOKMARK", `{"metadata":{"resourceVersion":"41"}}`},
		{"MODIFIED", other}, {"DELETED", string(issuedKey(t, 2))}, {"DELETED", string(issuedKey(t, 3))}, {"ADDED", string(issuedKey(t, 3))},
		{"BOOKMARK", `{"metadata":{"resourceVersion":"43","annotations":{"k8s.io/initial-events-end":"true"}}}`},
		{"ADDED", string(issuedKey(t, 4))}, {"DELETED", string(issuedKey(t, 1))},
	} {
		fmt.Fprintf(&text, `{"type":%q,"object":%s}`+"\n", event.kind, event.object)
	}
	reader, writer := io.Pipe()
	go func() { _, _ = io.WriteString(writer, text.String()) }()
	w := newStream(reader, &load{store: s})
	defer w.Stop()
	expect := func(kind watch.EventType, version, name string) {
		t.Helper()
		event := <-w.ResultChan()
		o, ok := event.Object.(*object)
		if event.Type != kind || !ok || version != "" && o.Metadata.ResourceVersion != version || o.Metadata.Name != name {
			t.Fatalf("got %s of %+v, want %s of %q", event.Type, event.Object, kind, name)
		}
	}
	expect(watch.Bookmark, "41", "")
	expect(watch.Bookmark, "43", "")
	if x.Loaded() {
		t.Error("loaded before the reflector says so")
	}
	if err := s.Replace(nil, "43"); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{1: "", 2: "", 3: "key-3", 4: "", 11: "key-1"} {
		digest, err := token.ParseDigest(fmt.Sprintf("sha256:%064x", n))
		if err != nil {
			t.Fatal(err)
		}
		name := ""
		if key, _ := x.Find(digest, time.Now()); key != nil {
			name = key.Name
		}
		if name != want {
			t.Errorf("the digest %d finds %q, want %q", n, name, want)
		}
	}
	expect(watch.Added, "", "key-4")
	expect(watch.Deleted, "", "key-1")
	if err := s.Replace(nil, "44"); err != nil || x.Size() != 0 {
		t.Errorf("after an empty list, %d keys are left, error %v", x.Size(), err)
	}
}

// The API server ends a streaming list early if too many keys change meanwhile.
func TestStreamingListThatEndsEarly(t *testing.T) {
	added := fmt.Sprintf(`{"type":"ADDED","object":%s}`, issuedKey(t, 1))
	end := `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"43","annotations":{"k8s.io/initial-events-end":"true"}}}}`
	for name, c := range map[string]struct {
		text  string
		early bool
	}{
		"at once":            {"", true},
		"between objects":    {added, true},
		"within an object":   {added + added[:len(added)/2], true},
		"within its end":     {added + end[:len(end)-1], true},
		"after its end":      {added + end, false},
		"among what follows": {added + end + added[:len(added)/2], false},
	} {
		s := &store{source: index.New(time.Now(), index.Options{}).Source(), read: func() {}, replaced: func() {}}
		w := newStream(io.NopCloser(strings.NewReader(c.text)), &load{store: s})
		var last watch.Event
		for event := range w.ResultChan() {
			last = event
		}
		early := last.Type == watch.Error && apierrors.IsTimeout(apierrors.FromObject(last.Object))
		if early != c.early || !early && last.Type == watch.Error {
			t.Errorf("%s: the last event is %s %+v, want an error that makes a reflector list: %t", name, last.Type, last.Object, c.early)
		}
	}
}
