package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// The replay stands for an API server with more keys than this machine's etcd holds. It answers the requests of a verifier that starts
// with the bytes that a real API server sends: a watch that begins with an event for each key. Each key is a copy of one that was read from
// a real API server, with a name, a UID and a digest of its own.

// replayBookmarks is how often a watch gets a bookmark. A real API server sends one a minute.
const replayBookmarks = 10 * time.Second

// replayPattern is what the replay needs to know of the key that it copies.
type replayPattern struct {
	Key     json.RawMessage // as the API server sends it
	Name    string
	UID     string
	Digest  string
	Digests []string // of the first keys; others have digests of tokens that nobody has
}

type replay struct {
	pattern replayPattern
	keys    int
	version int
	deleted chan int
}

// serveReplay serves the watch of a number of keys until the context ends. A DELETE of /keys/NUMBER deletes a key.
func serveReplay(ctx context.Context, address, patternFile string, keys int) error {
	r := &replay{keys: keys, version: 1000, deleted: make(chan int, 1024)}
	text, err := os.ReadFile(patternFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &r.pattern); err != nil {
		return err
	}
	mux := http.NewServeMux()
	base := "GET /apis/" + v1alpha1.GroupVersion.String()
	mux.HandleFunc(base+"/apikeys", r.watchKeys)
	mux.HandleFunc(base+"/apiroles", func(w http.ResponseWriter, request *http.Request) {
		writer := bufio.NewWriter(w)
		r.bookmark(writer, "ApiRole", true)
		r.follow(w, request, writer, "ApiRole", nil)
	})
	mux.HandleFunc("DELETE /keys/{number}", func(w http.ResponseWriter, request *http.Request) {
		number, err := strconv.Atoi(request.PathValue("number"))
		if err != nil || number < 0 || number >= keys {
			http.Error(w, "no such key", http.StatusNotFound)
			return
		}
		r.deleted <- number
	})
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(socket); ctx.Err() == nil {
		return err
	}
	return nil
}

// digest returns the digest of a key.
func (r *replay) digest(number int) string {
	if number < len(r.pattern.Digests) {
		return r.pattern.Digests[number]
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(strconv.AppendInt(nil, int64(number), 10)))
}

// event writes an event of a key.
func (r *replay) event(w *bufio.Writer, kind string, number int) {
	text := strings.NewReplacer(
		r.pattern.Digest, r.digest(number),
		r.pattern.UID, fmt.Sprintf("00000000-0000-4000-8000-%012d", number),
		`"`+r.pattern.Name+`"`, fmt.Sprintf(`"seed-%d"`, number),
	).Replace(string(r.pattern.Key))
	_, _ = fmt.Fprintf(w, "{\"type\":%q,\"object\":%s}\n", kind, text) // the flush reports errors
}

func (r *replay) bookmark(w *bufio.Writer, kind string, first bool) {
	annotations := ""
	if first {
		annotations = `,"annotations":{"k8s.io/initial-events-end":"true"}`
	}
	_, _ = fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d"%s}}}`+"\n",
		kind, v1alpha1.GroupVersion, r.version, annotations)
}

func (r *replay) watchKeys(w http.ResponseWriter, request *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	writer := bufio.NewWriterSize(w, 1<<18)
	for number := range r.keys {
		r.event(writer, "ADDED", number)
	}
	r.bookmark(writer, "ApiKey", true)
	r.follow(w, request, writer, "ApiKey", r.deleted)
}

// follow sends bookmarks and deletions until the client has gone.
func (r *replay) follow(w http.ResponseWriter, request *http.Request, writer *bufio.Writer, kind string, deleted <-chan int) {
	w.Header().Set("Content-Type", "application/json")
	ticker := time.NewTicker(replayBookmarks)
	defer ticker.Stop()
	for {
		if err := writer.Flush(); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-request.Context().Done():
			return
		case number := <-deleted:
			r.event(writer, "DELETED", number)
		case <-ticker.C:
			r.bookmark(writer, kind, false)
		}
	}
}
