package page

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// Times of a stream.
const (
	// heartbeat is the time between two comments in a silent stream, which show that it goes on.
	heartbeat = 15 * time.Second
	// retry is how long a stream waits before it asks an API server again that did not answer.
	retry = 500 * time.Millisecond
	// writeTime is how long a browser may take to read an event.
	writeTime = 30 * time.Second
)

// change is an event about a key.
type change struct {
	ID   string `json:"id"`
	HTML string `json:"html,omitempty"`
}

// trouble is an event about the connection to the API server. An empty text means that all is well.
type trouble struct {
	Text string `json:"text"`
}

// events writes server-sent events.
type events struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// send writes an event. id is the resourceVersion from which a later stream goes on, or "".
func (e *events) send(name, id string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	return e.write(fmt.Sprintf("event: %s\n%sdata: %s\n\n", name, id, text))
}

func (e *events) write(text string) error {
	if err := e.control.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return e.control.Flush()
}

// stream sends what happens to the keys of a namespace, from a resourceVersion on, until the browser or the page ends it. It is a POST
// request, since a browser sends neither an Origin nor a form token with an EventSource.
func (p *page) stream(w http.ResponseWriter, r *http.Request) {
	namespace := r.FormValue("namespace")
	if namespace == everywhere {
		namespace = ""
	}
	version := r.FormValue("version")
	if version == "" {
		http.Error(w, "version: missing", http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := &events{w: w, control: http.NewResponseController(w)}
	_ = out.control.SetReadDeadline(time.Time{}) // the server's limit is for requests
	failing := false
	for r.Context().Err() == nil {
		if err := out.write(": here\n\n"); err != nil {
			return
		}
		follow, err := p.Cluster.Follow(r.Context(), namespace, version)
		if err == nil {
			if failing {
				err = out.send("trouble", "", trouble{})
				failing = false
			}
			if err == nil {
				version, err = p.forward(r.Context(), out, follow, version)
			}
			follow.Stop()
		}
		if err == nil {
			continue // the API server ended the watch, as it does after some minutes
		}
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			_ = out.send("reload", "", struct{}{}) // the browser is gone if this fails
			return
		}
		failing = true
		if out.send("trouble", "", trouble{Text: p.Explain(err)}) != nil {
			return
		}
		select {
		case <-r.Context().Done():
		case <-time.After(retry):
		}
	}
}

// forward sends the events of a watch until it ends, and returns the last resourceVersion.
func (p *page) forward(ctx context.Context, out *events, follow watch.Interface, version string) (string, error) {
	alive := time.NewTicker(heartbeat)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			return version, nil
		case <-alive.C:
			if err := out.write(": here\n\n"); err != nil {
				return version, err
			}
		case event, more := <-follow.ResultChan():
			if !more {
				return version, nil
			}
			if event.Type == watch.Error {
				return version, apierrors.FromObject(event.Object)
			}
			key, ok := event.Object.(*v1alpha1.ApiKey)
			if !ok {
				continue
			}
			version = key.ResourceVersion
			if event.Type == watch.Bookmark {
				continue
			}
			if err := p.tell(out, event.Type, key); err != nil {
				return version, err
			}
		}
	}
}

// tell sends the row of a key, or that it is gone.
func (p *page) tell(out *events, kind watch.EventType, key *v1alpha1.ApiKey) error {
	what := change{ID: rowID(key.Namespace, key.Name)}
	if kind == watch.Deleted {
		return out.send("gone", key.ResourceVersion, what)
	}
	var err error
	if what.HTML, err = fragment("row", p.rowOf(key, p.now())); err != nil {
		return err
	}
	return out.send("row", key.ResourceVersion, what)
}
