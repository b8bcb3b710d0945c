// Package page is the page of kubectl apikey ui: a grid of API keys, the dialog that adds one, and a view of each key. It serves one browser
// on a loopback address, and acts with the rights of the user who started it. What it does to keys is in package keys; package gate says who
// may use it.
//
// The server renders all HTML. The script shows dialogs, filters and sorts rows, and replaces what changed. To add a view, write a template
// and a handler, and add a line to routes.
package page

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/page/gate"
)

// Options say what a page shows, and how it is served.
type Options struct {
	Cluster *keys.Cluster
	// Namespace is the namespace of the user's context, and Context the name of the context, for people. Chosen says that the user named
	// the namespace, so that the page begins with it and not with all.
	Namespace, Context string
	Chosen             bool
	// Port is the port on 127.0.0.1. With 0, which is safest, the system chooses one.
	Port int
	// Explain says in words what an error of the API server means.
	Explain func(error) string
	// Opened is called once the page is served.
	Opened func(*gate.Gate) error
}

//go:embed assets
var assets embed.FS

// page is the running page.
type page struct {
	Options

	gate     *gate.Gate
	receipts *receipts
	now      func() time.Time
}

// ErrEnded says that the page ended by itself.
var ErrEnded = errors.New("the page has ended")

// Serve serves the page until ctx ends, or the session does. In the second case the error is an [ErrEnded].
func Serve(ctx context.Context, o Options) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)))
	if err != nil {
		return fmt.Errorf("serve the page: %w", err)
	}
	p := &page{Options: o, gate: gate.New(listener.Addr().String(), time.Now()), receipts: newReceipts(), now: time.Now}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := &http.Server{
		Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, // ends streams, too
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	if err := o.Opened(p.gate); err != nil {
		return err
	}
	age := time.NewTicker(10 * time.Second)
	defer age.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("serve the page: %w", err)
		case <-p.gate.Ended():
			return fmt.Errorf("%w: %s", ErrEnded, p.gate.Why())
		case <-age.C:
			p.gate.Age(time.Now())
		}
	}
}

// handler returns everything that the page serves, behind its gate.
func (p *page) handler() http.Handler {
	styles, err := assets.ReadFile("assets/page.css")
	if err != nil {
		panic(err) // it is embedded
	}
	quiet := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/events") }
	return p.gate.Handler(p.routes(), styles, quiet, p.now)
}

func (p *page) routes() http.Handler {
	mux := http.NewServeMux()
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // it is embedded
	}
	mux.Handle("GET /assets/", http.StripPrefix("/assets/", http.FileServerFS(files)))
	mux.HandleFunc("GET /{$}", p.showGrid)
	mux.HandleFunc("POST /events", p.stream)
	mux.HandleFunc("GET /new", p.showForm)
	mux.HandleFunc("POST /new", p.create)
	mux.HandleFunc("GET /keys/{namespace}/{name}/{$}", p.showKey)
	mux.HandleFunc("GET /keys/{namespace}/{name}/token/{receipt}", p.showReceipt)
	mux.HandleFunc("POST /keys/{namespace}/{name}/token/{receipt}", p.handOver)
	mux.HandleFunc("POST /keys/{namespace}/{name}/token/{receipt}/taken", p.takeAway)
	mux.HandleFunc("GET /keys/{namespace}/{name}/{action}", p.ask)
	mux.HandleFunc("POST /keys/{namespace}/{name}/{action}", p.act)
	return mux
}
