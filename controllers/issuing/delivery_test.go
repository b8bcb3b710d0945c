package issuing

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func TestPauseDoublesAfterEachRefusal(t *testing.T) {
	g := &gates{}
	now := start
	g.refused("full", 0, now)
	for pause := minPause; pause < maxPause; pause *= 2 {
		if _, ok := g.turn("full", now.Add(pause-1)); ok {
			t.Fatalf("the gate opened before %s", pause)
		}
		now = now.Add(pause)
		round, ok := g.turn("full", now)
		if !ok {
			t.Fatalf("the gate is shut after %s", pause)
		}
		if _, ok := g.turn("full", now); ok {
			t.Fatal("the gate gave two turns at once")
		}
		g.refused("full", round, now)
	}
	for range 3 {
		if _, ok := g.turn("full", now.Add(maxPause-1)); ok {
			t.Fatal("the gate opened before maxPause")
		}
		now = now.Add(maxPause)
		round, ok := g.turn("full", now)
		if !ok {
			t.Fatal("the gate is shut for longer than maxPause")
		}
		g.refused("full", round, now)
	}
	if _, ok := g.turn("other", now); !ok {
		t.Error("a refusal shut the gate of another namespace")
	}
}

func TestConcurrentRefusalsCountOnce(t *testing.T) {
	g := &gates{}
	for range 16 {
		g.refused("full", 0, start) // all attempts began before the first refusal
	}
	if _, ok := g.turn("full", start.Add(minPause)); !ok {
		t.Error("16 concurrent refusals made the pause longer than one refusal does")
	}
}

func TestDeliveryOpensAndRefusalShuts(t *testing.T) {
	g := &gates{}
	g.refused("full", 0, start)
	now := start.Add(minPause)
	round, _ := g.turn("full", now)
	g.delivered("full", round, now)
	taken := 0
	for {
		if _, ok := g.turn("full", now); !ok {
			break
		}
		taken++
	}
	if taken != 2 {
		t.Errorf("got %d turns after a delivery, want 2", taken)
	}
	for range 2 * maxTurns {
		g.delivered("full", round, now)
	}
	for taken = 0; ; taken++ {
		if _, ok := g.turn("full", now); !ok {
			break
		}
	}
	if taken != maxTurns {
		t.Errorf("got %d turns after many deliveries, want %d", taken, maxTurns)
	}
	g.refused("full", round, now)
	g.delivered("full", round, now) // of the round before the refusal
	if _, ok := g.turn("full", now); ok {
		t.Error("the gate is open after a refusal")
	}
	if _, ok := g.turn("full", now.Add(minPause)); !ok {
		t.Error("a delivery did not reset the pause")
	}
}

func TestUnusedTurnIsGivenAgain(t *testing.T) {
	g := &gates{}
	if _, ok := g.turn("restarted", start); !ok {
		t.Fatal("the first key that asked got no turn")
	}
	if _, ok := g.turn("restarted", start.Add(minPause-1)); ok {
		t.Error("the turn was given again at once")
	}
	if _, ok := g.turn("restarted", start.Add(minPause)); !ok {
		t.Error("the turn was not given again")
	}
}

func TestGateIsRemovedWithLastWaitingKey(t *testing.T) {
	g := &gates{}
	g.refused("full", 0, start)
	if due, next := g.due(start); len(due) != 0 || !next.Equal(start.Add(minPause)) {
		t.Fatalf("unexpected due gates %v, next at %v", due, next)
	}
	now := start.Add(minPause)
	due, next := g.due(now)
	if len(due) != 1 || !next.After(now) {
		t.Fatalf("unexpected due gates %v, next at %v", due, next)
	}
	if due, _ := g.due(now); len(due) != 0 {
		t.Error("a turn was due twice")
	}
	g.awoken("full", due["full"], "a")
	if _, shut := g.round("full"); !shut {
		t.Error("the gate was removed while a key waits")
	}
	round, _ := g.round("full")
	g.refused("full", round, now)
	g.awoken("full", due["full"], "")
	if _, shut := g.round("full"); !shut {
		t.Error("the gate was removed though a refusal shut it meanwhile")
	}
	due, _ = g.due(now.Add(maxPause))
	g.awoken("full", due["full"], "")
	if _, shut := g.round("full"); shut || len(g.byNamespace) != 0 {
		t.Error("the gate was not removed")
	}
}

func TestByTurns(t *testing.T) {
	names := []string{"a", "b", "c"}
	for last, want := range map[string][]string{"": {"a", "b"}, "a": {"b", "c"}, "b": {"c", "a"}, "bb": {"c", "a"}, "c": {"a", "b"}} {
		if got := byTurns(names, last, 2); !slices.Equal(got, want) {
			t.Errorf("after %q: got %q, want %q", last, got, want)
		}
	}
	if got := byTurns(names, "b", 5); !slices.Equal(got, []string{"c", "a", "b"}) {
		t.Errorf("with more turns than keys: got %q", got)
	}
	if got := byTurns(nil, "b", 1); len(got) != 0 {
		t.Errorf("without keys: got %q", got)
	}
}

func TestRefusal(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	denied := func(code int32) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Message: "denied the request"}}
	}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"a quota":                  {apierrors.NewForbidden(secrets, "a", errors.New("exceeded quota")), true},
		"an admission policy":      {apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "a", nil), true},
		"a webhook without a code": {denied(http.StatusBadRequest), true},
		"a webhook with a code":    {denied(http.StatusUnprocessableEntity), true},
		"a name conflict":          {apierrors.NewAlreadyExists(secrets, "a"), false},
		"a deleted namespace":      {apierrors.NewNotFound(corev1.Resource("namespaces"), "a"), false},
		"too many requests":        {apierrors.NewTooManyRequests("later", 1), false},
		"expired credentials":      {apierrors.NewUnauthorized("who?"), false},
		"a webhook that is down":   {apierrors.NewInternalError(errors.New("failed calling webhook")), false},
		"a lost connection":        {errors.New("connection reset"), false},
	} {
		if got := refusal(c.err); got != c.want {
			t.Errorf("%s: refusal is %v, want %v", name, got, c.want)
		}
	}
}
