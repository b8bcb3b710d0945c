// Package clockskew measures the difference between this machine's clock and the clock of an HTTP server. It must not decide
// what follows from the skew.
package clockskew

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// fresh is how long a measurement is reused. It must hold on the wall clock and on the monotonic clock, which differ if the clock
// was set in between.
const fresh = 10 * time.Second

const timeout = 5 * time.Second

// Meter measures the clock skew to a server. It is safe for concurrent use.
type Meter struct {
	client *http.Client
	url    string

	mu       sync.Mutex
	measured time.Time
	skew     time.Duration
}

// NewMeter returns a Meter that reads the Date header of responses from url.
func NewMeter(client *http.Client, url string) *Meter {
	return &Meter{client: client, url: url}
}

// Skew returns this machine's time minus the server's: it is positive if this clock is ahead. An error means that the skew
// could not be measured; then nothing irreversible must be done.
func (m *Meter) Skew(ctx context.Context) (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.measured.IsZero() && m.isFresh(time.Now()) {
		return m.skew, nil
	}

	// Concurrent callers wait for this measurement.
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
		return 0, errors.New("measure clock skew: the response has no Date header")
	}
	served, err := http.ParseTime(header)
	if err != nil {
		return 0, fmt.Errorf("measure clock skew: parse the Date header: %w", err)
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
