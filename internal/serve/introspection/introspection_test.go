package introspection_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/serve/introspection"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

func post(world *script.World, media, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, introspection.Path, strings.NewReader(body))
	r.Header.Set("Content-Type", media)
	recorder := httptest.NewRecorder()
	(&introspection.Handler{Checker: world.Protocol, Reader: world.Reader}).ServeHTTP(recorder, r)
	return recorder
}

const form = "application/x-www-form-urlencoded"

func TestScripts(t *testing.T) {
	script.Run(t, "introspection", func(t *testing.T, world *script.World, ask script.Ask) (script.Answer, bool) {
		t.Helper()
		bare, ok := ask.BareToken()
		if !ok {
			return script.Answer{}, false
		}
		values := url.Values{"token": {bare}, "token_type_hint": {"access_token"}}
		if ask.From.IsValid() {
			values.Set("client_address", ask.From.String())
		}
		recorder := post(world, form, values.Encode())
		answer := script.Answer{Bytes: recorder.Body.String()}
		if recorder.Code == http.StatusServiceUnavailable {
			return answer, true
		}
		var document map[string]any
		if err := json.Unmarshal(recorder.Body.Bytes(), &document); err != nil || recorder.Code != http.StatusOK {
			t.Fatalf("status %d, error %v; want %d and JSON", recorder.Code, err, http.StatusOK)
		}
		if document["active"] == true {
			answer.Class, answer.Identity = verify.OK, document["sub"].(string)
			answer.Attributes = map[string]string{}
			told, _ := document["apikey_attributes"].(map[string]any)
			for name, value := range told {
				answer.Attributes[name] = value.(string)
			}
			return answer, true
		}
		if len(document) != 1 {
			t.Errorf("the response for an inactive token is %v, want active alone", document)
		}
		answer.Class = ask.SameClass // all refusals are inactive
		return answer, true
	})
}

func TestActiveToken(t *testing.T) {
	world := script.NewWorld("introspection")
	key := world.Put("a", []string{"b.write", "a.read"})
	recorder := post(world, form, "token="+key)
	want := `{"active":true,"scope":"a.read b.write","sub":"apikey:shop:a","username":"apikey:shop:a","token_type":"Bearer",` +
		`"jti":"uid-of-a","apikey_namespace":"shop","apikey_name":"a"}`
	if got := strings.TrimSpace(recorder.Body.String()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if cache := recorder.Header().Get("Cache-Control"); cache != "no-store" {
		t.Errorf("Cache-Control is %q, want no-store: a cached response would outlive a revocation", cache)
	}
}

func TestAttributes(t *testing.T) {
	world := script.NewWorld("introspection")
	attributes, err := verify.NewAttributes(map[string]string{"plan": "gold", "owner": "team-shop"})
	if err != nil {
		t.Fatal(err)
	}
	recorder := post(world, form, "token="+world.PutOwned("a", nil, attributes))
	if want := `"apikey_attributes":{"owner":"team-shop","plan":"gold"}}`; !strings.HasSuffix(strings.TrimSpace(recorder.Body.String()), want) {
		t.Errorf("got %s, want %s at its end", recorder.Body, want)
	}
}

func TestInvalidRequests(t *testing.T) {
	world := script.NewWorld("introspection")
	key := world.Put("a", nil)
	for name, c := range map[string]struct {
		media, body string
		status      int
	}{
		"valid":         {form, "token=" + key, http.StatusOK},
		"no token":      {form, "", http.StatusBadRequest},
		"two tokens":    {form, "token=" + key + "&token=" + key, http.StatusBadRequest},
		"bad address":   {form, "client_address=10.0.0&token=" + key, http.StatusBadRequest},
		"two addresses": {form, "client_address=10.0.0.1&client_address=10.0.0.2&token=" + key, http.StatusBadRequest},
		"bad escape":    {form, "token=%zz", http.StatusBadRequest},
		"JSON":          {"application/json", `{"token":"` + key + `"}`, http.StatusUnsupportedMediaType},
		"too long":      {form, "x=" + strings.Repeat("y", 1<<20) + "&token=" + key, http.StatusRequestEntityTooLarge},
		"garbage":       {form, "\x00\xff;", http.StatusBadRequest},
	} {
		recorder := post(world, c.media, c.body)
		if recorder.Code != c.status {
			t.Errorf("%s: status %d, want %d", name, recorder.Code, c.status)
		}
		if strings.Contains(recorder.Body.String(), key) {
			t.Errorf("%s: the response contains the token", name)
		}
	}
}
