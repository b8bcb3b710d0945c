package clockskew_test

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/clockskew"
)

// dated starts a server that answers with a Date header, or none.
func dated(t *testing.T, date ...string) *clockskew.Meter {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = date
	}))
	t.Cleanup(server.Close)
	return clockskew.NewMeter(server.Client(), server.URL)
}

func TestSkew(t *testing.T) {
	for name, ahead := range map[string]time.Duration{
		"in step":        0,
		"slightly ahead": 3 * time.Second,
		"ahead":          time.Hour,
		"behind":         -time.Hour,
		"years ahead":    50 * 365 * 24 * time.Hour,
		"years behind":   -50 * 365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			before := time.Now()
			served := before.Add(-ahead).UTC().Truncate(time.Second)
			skew, err := dated(t, served.Format(http.TimeFormat)).Skew(t.Context())
			// However slow this machine is, the measurement lies between the two looks at the clock; a second for a clock
			// that is adjusted meanwhile.
			least, most := before.Sub(served)-time.Second, time.Since(served)+time.Second
			if err != nil || skew < least || skew > most {
				t.Errorf("%v, %v; want %v to %v", skew, err, least, most)
			}
		})
	}
}

func TestSkewCannotBeMeasured(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	for name, meter := range map[string]*clockskew.Meter{
		"no Date":         dated(t),
		"empty Date":      dated(t, ""),
		"unparsable Date": dated(t, "2027-01-31T00:00:00Z"),
		"dead server":     clockskew.NewMeter(dead.Client(), dead.URL),
		"unparsable URL":  clockskew.NewMeter(http.DefaultClient, "http://[::1"),
		"no host":         clockskew.NewMeter(http.DefaultClient, "/version"),
	} {
		if skew, err := meter.Skew(t.Context()); err == nil || skew != 0 {
			t.Errorf("%s: %v, %v; want 0 and an error", name, skew, err)
		}
	}
}

// A server without a network, so that it can run on a bubble's clock; its own is an hour behind, and it counts requests.
type server struct {
	dateless bool
	requests int
}

func (s *server) RoundTrip(*http.Request) (*http.Response, error) {
	s.requests++
	header := http.Header{}
	if !s.dateless {
		header.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
	}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: http.NoBody}, nil
}

func (s *server) meter() *clockskew.Meter {
	return clockskew.NewMeter(&http.Client{Transport: s}, "http://server.invalid")
}

func TestMeasurementIsUsedAgainForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		meter := s.meter()
		for _, step := range []struct {
			pass time.Duration
			want int
		}{{0, 1}, {0, 1}, {10*time.Second - 1, 1}, {1, 2}, {9 * time.Second, 2}, {time.Hour, 3}} {
			<-time.After(step.pass) // in the bubble: nobody waits
			skew, err := meter.Skew(t.Context())
			if err != nil || skew.Truncate(time.Second) != time.Hour || s.requests != step.want {
				t.Errorf("after %v more: %v, %v, %d requests; want 1h and %d", step.pass, skew, err, s.requests, step.want)
			}
		}
	})
}

func TestFailureIsNotUsedAgain(t *testing.T) {
	s := server{dateless: true}
	meter := s.meter()
	if _, err := meter.Skew(t.Context()); err == nil {
		t.Error("measured without a Date")
	}
	s.dateless = false
	if _, err := meter.Skew(t.Context()); err != nil || s.requests != 2 {
		t.Errorf("%v after %d requests; want none after 2", err, s.requests)
	}
}

// The race detector is the judge of this one, together with the count.
func TestConcurrentCallsShareAMeasurement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server
		meter := s.meter()
		var calls sync.WaitGroup
		for range 16 {
			calls.Go(func() {
				if skew, err := meter.Skew(t.Context()); err != nil || skew != time.Hour {
					t.Errorf("%v, %v; want 1h", skew, err)
				}
			})
		}
		calls.Wait()
		if s.requests != 1 {
			t.Errorf("%d requests, want 1", s.requests)
		}
	})
}
