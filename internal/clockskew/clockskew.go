// Package clockskew measures how far this machine's clock is from an HTTP server's, and knows nothing of what the answer is
// used for.
package clockskew

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// A measurement is used again for this long, by the wall clock and by the monotonic one: a clock that was set in
// between makes the two differ.
const fresh = 10 * time.Second

const timeout = 5 * time.Second

// Meter asks a server for its time. It is safe for concurrent use.
type Meter struct {
	client *http.Client
	url    string

	mu       sync.Mutex
	measured time.Time
	skew     time.Duration
}

// NewMeter returns a Meter that reads the Date header of answers from a URL.
func NewMeter(client *http.Client, url string) *Meter {
	return &Meter{client: client, url: url}
}

// Skew is this machine's time less the server's: positive where this clock is ahead. An error means that it could not be
// measured, and that nothing irreversible should be done.
func (m *Meter) Skew(ctx context.Context) (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.measured.IsZero() && m.isFresh(time.Now()) {
		return m.skew, nil
	}

	// Others wait for this answer meanwhile.
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url, nil)
	if err != nil {
		return 0, fmt.Errorf("measure clock skew: %w", err)
	}
	response, err := m.client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("measure clock skew: %w", err)
	}
	if err := response.Body.Close(); err != nil {
		return 0, fmt.Errorf("measure clock skew: %w", err)
	}
	header := response.Header.Get("Date")
	if header == "" {
		return 0, errors.New("measure clock skew: the server's answer has no Date header")
	}
	served, err := http.ParseTime(header)
	if err != nil {
		return 0, fmt.Errorf("measure clock skew: the server's Date header: %w", err)
	}
	m.measured = time.Now()
	m.skew = m.measured.Sub(served)
	return m.skew, nil
}

func (m *Meter) isFresh(now time.Time) bool {
	monotonic := now.Sub(m.measured)
	wall := now.Round(0).Sub(m.measured.Round(0))
	return monotonic < fresh && wall >= 0 && wall < fresh
}
