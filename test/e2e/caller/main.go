// Command caller calls an API all the time, in turn with a token that must be allowed and with one that must be refused, and counts the
// answers. It serves the counts at /counts. The end-to-end tests run it in a pod.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/apikey-operator/apikey-operator/test/e2e/tally"
)

func main() {
	url := flag.String("url", "", "URL to call")
	allowed := flag.String("allowed", "", "file with the token that must be allowed")
	refused := flag.String("refused", "", "file with the token that must be refused")
	pause := flag.Duration("pause", 10*time.Millisecond, "pause between two requests of a worker")
	workers := flag.Int("workers", 2, "number of workers that call at the same time")
	listen := flag.String("listen", ":8000", "address at which the counts are served")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	var calls caller
	for file, code := range map[string]int{*allowed: http.StatusOK, *refused: http.StatusForbidden} {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		calls.turns = append(calls.turns, turn{token: strings.TrimSpace(string(text)), want: code})
	}
	calls.url, calls.client = *url, &http.Client{Timeout: 10 * time.Second}
	for range *workers {
		go calls.run(ctx, *pause)
	}

	http.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(calls.counts())
	})
	server := &http.Server{Addr: *listen, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// turn is a token and the status that it must get.
type turn struct {
	token string
	want  int
}

type caller struct {
	url    string
	client *http.Client
	turns  []turn

	mu    sync.Mutex
	tally tally.Tally
}

func (c *caller) run(ctx context.Context, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.call(ctx, c.turns[i%len(c.turns)])
		}
	}
}

func (c *caller) call(ctx context.Context, turn turn) {
	code, err := c.ask(ctx, turn.token)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally.Add(turn.want, code, err)
}

func (c *caller) ask(ctx context.Context, token string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := c.client.Do(request)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Body.Close()
}

func (c *caller) counts() tally.Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally
}
