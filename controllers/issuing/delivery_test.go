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

func TestAGateStaysShutTwiceAsLongAfterEachRefusal(t *testing.T) {
	g := &gates{}
	now := start
	g.refused("full", 0, now)
	for pause := minPause; pause < maxPause; pause *= 2 {
		if _, ok := g.turn("full", now.Add(pause-1)); ok {
			t.Fatalf("open before %s", pause)
		}
		now = now.Add(pause)
		round, ok := g.turn("full", now)
		if !ok {
			t.Fatalf("shut after %s", pause)
		}
		if _, ok := g.turn("full", now); ok {
			t.Fatal("two turns at once")
		}
		g.refused("full", round, now)
	}
	for range 3 {
		if _, ok := g.turn("full", now.Add(maxPause-1)); ok {
			t.Fatal("more often than every ten minutes")
		}
		now = now.Add(maxPause)
		round, ok := g.turn("full", now)
		if !ok {
			t.Fatal("shut for more than ten minutes")
		}
		g.refused("full", round, now)
	}
	if _, ok := g.turn("other", now); !ok {
		t.Error("another namespace is shut too")
	}
}

func TestRefusalsOfOneTimeCountAsOne(t *testing.T) {
	g := &gates{}
	for range 16 {
		g.refused("full", 0, start) // all of them tried before the first answer
	}
	if _, ok := g.turn("full", start.Add(minPause)); !ok {
		t.Error("sixteen at once made a pause of more than one")
	}
}

func TestADeliveryOpensAndARefusalShuts(t *testing.T) {
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
		t.Errorf("%d turns after a delivery", taken)
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
		t.Errorf("%d turns after many deliveries", taken)
	}
	g.refused("full", round, now)
	g.delivered("full", round, now) // of before the refusal
	if _, ok := g.turn("full", now); ok {
		t.Error("open after a refusal")
	}
	if _, ok := g.turn("full", now.Add(minPause)); !ok {
		t.Error("a delivery does not begin with a short pause again")
	}
}

func TestATurnThatCameToNothingIsGivenAgain(t *testing.T) {
	g := &gates{}
	if _, ok := g.turn("restarted", start); !ok {
		t.Fatal("the first that asks has no turn")
	}
	if _, ok := g.turn("restarted", start.Add(minPause-1)); ok {
		t.Error("given again at once")
	}
	if _, ok := g.turn("restarted", start.Add(minPause)); !ok {
		t.Error("lost")
	}
}

func TestAGateGoesWithTheLastKeyThatWaits(t *testing.T) {
	g := &gates{}
	g.refused("full", 0, start)
	if due, next := g.due(start); len(due) != 0 || !next.Equal(start.Add(minPause)) {
		t.Fatalf("%v, %v", due, next)
	}
	now := start.Add(minPause)
	due, next := g.due(now)
	if len(due) != 1 || !next.After(now) {
		t.Fatalf("%v, %v", due, next)
	}
	if due, _ := g.due(now); len(due) != 0 {
		t.Error("woken twice for one turn")
	}
	g.awoken("full", due["full"], "a")
	if _, shut := g.round("full"); !shut {
		t.Error("gone while a key waits")
	}
	round, _ := g.round("full")
	g.refused("full", round, now)
	g.awoken("full", due["full"], "")
	if _, shut := g.round("full"); !shut {
		t.Error("gone, though it was shut meanwhile")
	}
	due, _ = g.due(now.Add(maxPause))
	g.awoken("full", due["full"], "")
	if _, shut := g.round("full"); shut || len(g.byNamespace) != 0 {
		t.Error("still there")
	}
}

func TestTurnsGoAllAround(t *testing.T) {
	names := []string{"a", "b", "c"}
	for last, want := range map[string][]string{"": {"a", "b"}, "a": {"b", "c"}, "b": {"c", "a"}, "bb": {"c", "a"}, "c": {"a", "b"}} {
		if got := byTurns(names, last, 2); !slices.Equal(got, want) {
			t.Errorf("after %q: %q", last, got)
		}
	}
	if got := byTurns(names, "b", 5); !slices.Equal(got, []string{"c", "a", "b"}) {
		t.Errorf("more turns than keys: %q", got)
	}
	if got := byTurns(nil, "b", 1); len(got) != 0 {
		t.Errorf("no keys: %q", got)
	}
}

func TestWhatIsARefusal(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	denied := func(code int32) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Message: "denied the request"}}
	}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"a quota":                     {apierrors.NewForbidden(secrets, "a", errors.New("exceeded quota")), true},
		"an admission policy":         {apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "a", nil), true},
		"a webhook without a code":    {denied(http.StatusBadRequest), true},
		"a webhook with a code":       {denied(http.StatusUnprocessableEntity), true},
		"a name that is taken":        {apierrors.NewAlreadyExists(secrets, "a"), false},
		"a namespace that has gone":   {apierrors.NewNotFound(corev1.Resource("namespaces"), "a"), false},
		"load":                        {apierrors.NewTooManyRequests("later", 1), false},
		"a token that is out of date": {apierrors.NewUnauthorized("who?"), false},
		"a webhook that is down":      {apierrors.NewInternalError(errors.New("failed calling webhook")), false},
		"a lost connection":           {errors.New("connection reset"), false},
	} {
		if got := refusal(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
