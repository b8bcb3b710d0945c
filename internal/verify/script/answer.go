package script

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// NewWorld is an empty, loaded world for tests that go beyond the scripts.
func NewWorld(protocol string) *World {
	w := newWorld(protocol)
	w.Now = start
	w.source.Replace(nil)
	w.silent.Replace(nil)
	return w
}

// Put adds a key of the namespace shop that opens everything its roles do, and returns its token.
func (w *World) Put(name string, roles []string) string {
	minted := token.Mint(w.Reader.Prefixes[0])
	w.source.Put(index.Entry{
		ID: index.ID{Namespace: "shop", Name: name}, UID: "uid-of-" + name, Created: start,
		Credentials: []index.Credential{{Digest: minted.Digest(), Deadline: expiry.Never()}}, Networks: access.AnyNetwork(), Roles: roles,
	})
	return minted.Reveal()
}

// HTTPClass is what a status and a challenge mean.
func HTTPClass(t *testing.T, status int, challenge string) verify.Class {
	t.Helper()
	for class, told := range map[verify.Class]struct {
		status    int
		challenge string
	}{
		verify.OK:                {http.StatusOK, ""},
		verify.Unauthenticated:   {http.StatusUnauthorized, `Bearer realm="apikey"`},
		verify.InvalidToken:      {http.StatusUnauthorized, `Bearer realm="apikey", error="invalid_token"`},
		verify.Forbidden:         {http.StatusForbidden, ""},
		verify.InsufficientScope: {http.StatusForbidden, `Bearer realm="apikey", error="insufficient_scope"`},
		verify.Unavailable:       {http.StatusServiceUnavailable, ""},
	} {
		if told.status == status && told.challenge == challenge {
			return class
		}
	}
	t.Errorf("%d with the challenge %q means nothing", status, challenge)
	return verify.Unavailable
}

// HTTPAnswer is an answer by HTTP, with the identity in its headers.
func HTTPAnswer(t *testing.T, recorder *httptest.ResponseRecorder) Answer {
	t.Helper()
	response := recorder.Result()
	defer func() { _ = response.Body.Close() }()
	answer := Answer{Class: HTTPClass(t, response.StatusCode, response.Header.Get("WWW-Authenticate"))}
	dump, err := httputil.DumpResponse(response, true)
	if err != nil {
		t.Fatal(err)
	}
	answer.Bytes = string(dump)
	all := []string{"X-Apikey-Namespace", "X-Apikey-Name", "X-Apikey-Uid", "X-Apikey-Roles"}
	for _, name := range all {
		value := response.Header.Get(name)
		if (value == "") != (answer.Class != verify.OK) {
			t.Errorf("%d with %s %q", response.StatusCode, name, value)
		}
		answer.Identity += value
	}
	return answer
}
