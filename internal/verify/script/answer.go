package script

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// NewWorld returns a [World] with no keys, loaded, for tests beyond the scripts.
func NewWorld(protocol string) *World {
	w := newWorld(protocol)
	w.Now = start
	w.source.Replace(nil)
	w.silent.Replace(nil)
	return w
}

// Put adds a key to the namespace shop, with these roles and without restrictions, and returns its token.
func (w *World) Put(name string, roles []string) string {
	return w.PutOwned(name, roles, verify.Attributes{})
}

// PutOwned adds a key as [World.Put] does, with attributes.
func (w *World) PutOwned(name string, roles []string, attributes verify.Attributes) string {
	minted := token.Mint(w.Reader.Prefixes[0])
	w.source.Put(index.Entry{
		ID: index.ID{Namespace: "shop", Name: name}, UID: "uid-of-" + name, Created: start,
		Credentials: []index.Credential{{Digest: minted.Digest(), Deadline: expiry.Never()}}, Networks: access.AnyNetwork(), Roles: roles,
		Attributes: attributes,
	})
	return minted.Reveal()
}

// HTTPClass returns the class that an HTTP status and a challenge stand for.
func HTTPClass(t *testing.T, status int, challenge string) verify.Class {
	t.Helper()
	for class, answer := range map[verify.Class]struct {
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
		if answer.status == status && answer.challenge == challenge {
			return class
		}
	}
	t.Errorf("no class has the status %d and the challenge %q", status, challenge)
	return verify.Unavailable
}

// HTTPAnswer returns the answer in an HTTP response, with the identity from its headers.
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
			t.Errorf("an answer with status %d has the header %s: %q", response.StatusCode, name, value)
		}
		answer.Identity += value
	}
	answer.Headers = AttributesOf(response.Header)
	return answer
}

// AttributesOf returns the attributes in headers, by name. The names of headers may be in any case.
func AttributesOf(headers map[string][]string) map[string]string {
	attributes := map[string]string{}
	for header, values := range headers {
		if name, ok := strings.CutPrefix(strings.ToLower(header), "x-apikey-attribute-"); ok {
			attributes[name] = strings.Join(values, "\n") // no attribute has two values
		}
	}
	return attributes
}
