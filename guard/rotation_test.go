package guard_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/guard"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// TestTokensOfARotation lets a guard follow a key in the midst of a rotation: the current, the pending and the retiring token are
// accepted, the latter until its overlap has passed. Nothing but the guard's own clock ends it.
func TestTokensOfARotation(t *testing.T) {
	pending, retiring, unknown := token.Mint(token.DefaultPrefix), token.Mint(token.DefaultPrefix), token.Mint(token.DefaultPrefix)
	retiresAt := time.Now().Add(2 * time.Second).Truncate(time.Second)
	key := acme()
	key.Status.Rotation = &v1alpha1.ApiKeyRotationStatus{
		Pending:  &v1alpha1.ApiKeyPendingToken{Hash: pending.Digest().String(), TokenHint: pending.Hint(), Overlap: "1h"},
		Retiring: &v1alpha1.ApiKeyRetiringToken{Hash: retiring.Digest().String(), TokenHint: retiring.Hint(), RetiresAt: metav1.NewTime(retiresAt)},
	}
	config, stop := serveKey(key)
	defer stop()
	keys, err := guard.New(config, guard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel() // before the server stops, which waits for its watches
	go keys.Run(ctx)
	waitUntilReady(keys)
	orders := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(keys.Handler(orders, guard.Need{Roles: []string{"org.permission.order.read"}}))
	defer server.Close()
	accepted := func(text string) bool { return strings.HasPrefix(get(server.URL, text), "200 ") }

	for name, text := range map[string]string{"current": issuedToken, "pending": pending.Reveal()} {
		if !accepted(text) {
			t.Errorf("the %s token is refused", name)
		}
	}
	before := 0
	for {
		asked := time.Now()
		yes := accepted(retiring.Reveal())
		if !yes && time.Now().Before(retiresAt) {
			t.Fatal("the retiring token is refused within its overlap")
		}
		if yes && !asked.Before(retiresAt) {
			t.Fatal("the retiring token is accepted after its overlap")
		}
		if !yes {
			break
		}
		before++
	}
	if before == 0 {
		t.Error("the retiring token was never accepted")
	}
	if get(server.URL, retiring.Reveal()) != get(server.URL, unknown.Reveal()) {
		t.Error("a retired token gets another answer than an unknown one")
	}
	if !accepted(issuedToken) || !accepted(pending.Reveal()) {
		t.Error("the end of the overlap ended another token")
	}
}
