// Command caller calls an API all the time, in turn with a token that must be allowed and with one that must be refused, and counts the
// answers. It reads each token from its file at each request. It serves the counts at /counts, and the digest of the token that was
// allowed last at /digest. The end-to-end tests run it in a pod.
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

	"github.com/apikey-operator/apikey-operator/internal/token"
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
		calls.turns = append(calls.turns, turn{file: file, want: code})
	}
	calls.url, calls.client = *url, &http.Client{Timeout: 10 * time.Second}
	for range *workers {
		go calls.run(ctx, *pause)
	}

	http.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(calls.counts())
	})
	http.HandleFunc("GET /digest", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, calls.digest())
	})
	server := &http.Server{Addr: *listen, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// turn is the file of a token and the status that the token must get.
type turn struct {
	file string
	want int
}

type caller struct {
	url    string
	client *http.Client
	turns  []turn

	mu      sync.Mutex
	tally   tally.Tally
	allowed token.Token // the token that was allowed last
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
	sent, code, err := c.ask(ctx, turn.file)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally.Add(turn.want, code, err)
	if code == http.StatusOK {
		c.allowed = sent
	}
}

// ask calls the API with the token in a file, and returns that token and the status of the answer.
func (c *caller) ask(ctx context.Context, file string) (token.Token, int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return token.Token{}, 0, err
	}
	sent, err := token.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return token.Token{}, 0, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return token.Token{}, 0, err
	}
	request.Header.Set("Authorization", "Bearer "+sent.Reveal())
	response, err := c.client.Do(request)
	if err != nil {
		return token.Token{}, 0, err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return sent, response.StatusCode, response.Body.Close()
}

// digest returns the digest of the token that was allowed last.
func (c *caller) digest() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allowed.Digest().String()
}

func (c *caller) counts() tally.Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally
}
