package serve_test

import (
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

func TestUsageMarksWhatWasAccepted(t *testing.T) {
	origin := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	observer := serve.NewUsage(usage.NewMeter(origin)).Protocol("any")
	key := &verify.Key{Use: &usage.Mark{}}
	for result := range verify.Result(verify.Results) {
		if result != verify.Allowed {
			observer.Decided(verify.Decision{Result: result, Key: key}, origin.Add(time.Hour), 0)
		}
	}
	observer.Decided(verify.Decision{Result: verify.Unknown}, origin, 0)
	if key.Use.Used() != 0 {
		t.Errorf("a refused token counts as used at %d", key.Use.Used())
	}
	observer.Decided(verify.Decision{Result: verify.Allowed, Key: key}, origin.Add(9*time.Second), 0)
	if key.Use.Used() != 10 {
		t.Errorf("the token was used at %d, want the tenth second", key.Use.Used())
	}
	observer.Decided(verify.Decision{Result: verify.Allowed, Key: &verify.Key{}}, origin, 0) // a key without a mark
}
