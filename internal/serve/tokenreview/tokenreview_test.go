package tokenreview_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/internal/serve/tokenreview"
	"github.com/apikey-operator/apikey-operator/internal/verify"
	"github.com/apikey-operator/apikey-operator/internal/verify/script"
)

func post(t *testing.T, world *script.World, review any) *httptest.ResponseRecorder {
	t.Helper()
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	return postBody(world, "application/json", body)
}

func postBody(world *script.World, media string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, tokenreview.Path, bytes.NewReader(body))
	r.Header.Set("Content-Type", media)
	recorder := httptest.NewRecorder()
	handler := &tokenreview.Handler{Checker: world.Protocol, Reader: world.Reader, Audiences: []string{"cluster", "other"}}
	handler.ServeHTTP(recorder, r)
	return recorder
}

func reviewOf(token string, audiences ...string) *authenticationv1.TokenReview {
	return &authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"},
		Spec:     authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences},
	}
}

func decode(t *testing.T, recorder *httptest.ResponseRecorder) *authenticationv1.TokenReview {
	t.Helper()
	if recorder.Code != http.StatusOK {
		t.Fatalf("status %d, want %d: %s", recorder.Code, http.StatusOK, recorder.Body)
	}
	answer := &authenticationv1.TokenReview{}
	decoder := json.NewDecoder(recorder.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// A TokenReview carries a token and nothing else.
func TestScripts(t *testing.T) {
	script.Run(t, "tokenreview", func(t *testing.T, world *script.World, ask script.Ask) (script.Answer, bool) {
		t.Helper()
		bare, ok := ask.BareToken()
		if !ok {
			return script.Answer{}, false
		}
		recorder := post(t, world, reviewOf(bare))
		answer := script.Answer{Bytes: recorder.Body.String()}
		status := decode(t, recorder).Status
		switch {
		case status.Authenticated:
			answer.Class = verify.OK
			answer.Identity = status.User.Username
			answer.Attributes = map[string]string{}
			for key, values := range status.User.Extra {
				answer.Attributes[strings.TrimPrefix(key, "apikey-operator.io/")] = strings.Join(values, "\n")
			}
		case status.Error != "":
			answer.Class = verify.Unavailable
		default:
			answer.Class = ask.SameClass // a TokenReview does not distinguish refusals
		}
		return answer, true
	})
}

func TestUser(t *testing.T) {
	world := script.NewWorld("tokenreview")
	key := world.Put("a", []string{"org.customer.write", "org.customer.read"})
	user := decode(t, post(t, world, reviewOf(key))).Status.User
	if user.Username != "apikey:shop:a" || user.UID != "uid-of-a" ||
		!slices.Equal(user.Groups, []string{"apikey:org.customer.read", "apikey:org.customer.write"}) || len(user.Extra) != 0 {
		t.Errorf("user is %+v", user)
	}
}

func TestExtra(t *testing.T) {
	world := script.NewWorld("tokenreview")
	attributes, err := verify.NewAttributes(map[string]string{"owner": "team-shop", "plan": "gold"})
	if err != nil {
		t.Fatal(err)
	}
	user := decode(t, post(t, world, reviewOf(world.PutOwned("a", nil, attributes)))).Status.User
	want := map[string]authenticationv1.ExtraValue{"apikey-operator.io/owner": {"team-shop"}, "apikey-operator.io/plan": {"gold"}}
	if !reflect.DeepEqual(user.Extra, want) {
		t.Errorf("extra is %v, want %v", user.Extra, want)
	}
}

func TestAnswerHasTheVersionOfTheRequest(t *testing.T) {
	world := script.NewWorld("tokenreview")
	key := world.Put("a", nil)
	for _, version := range []string{"authentication.k8s.io/v1", "authentication.k8s.io/v1beta1"} {
		review := reviewOf(key)
		review.APIVersion = version
		if answer := decode(t, post(t, world, review)); answer.APIVersion != version || answer.Kind != "TokenReview" || !answer.Status.Authenticated {
			t.Errorf("%s: the answer is %s %s with authenticated %t", version, answer.APIVersion, answer.Kind, answer.Status.Authenticated)
		}
	}
}

func TestAudiences(t *testing.T) {
	world := script.NewWorld("tokenreview")
	key := world.Put("a", nil)
	for _, c := range []struct {
		asked, answered []string
		authenticated   bool
	}{
		{nil, nil, true},
		{[]string{"cluster"}, []string{"cluster"}, true},
		{[]string{"foreign", "cluster", "other"}, []string{"cluster", "other"}, true},
		{[]string{"foreign"}, nil, false},
		{[]string{""}, nil, false},
	} {
		status := decode(t, post(t, world, reviewOf(key, c.asked...))).Status
		if status.Authenticated != c.authenticated || !slices.Equal(status.Audiences, c.answered) || (status.Error == "") != c.authenticated {
			t.Errorf("requested audiences %v: status is %+v, want authenticated %t for %v", c.asked, status, c.authenticated, c.answered)
		}
	}
}

func TestInvalidRequests(t *testing.T) {
	world := script.NewWorld("tokenreview")
	key := world.Put("a", nil)
	good, err := json.Marshal(reviewOf(key))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		media, body string
		status      int
	}{
		"valid":         {"application/json; charset=utf-8", string(good), http.StatusOK},
		"empty":         {"application/json", "", http.StatusBadRequest},
		"garbage":       {"application/json", "\x00\xff{" + key, http.StatusBadRequest},
		"another kind":  {"application/json", `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"}`, http.StatusBadRequest},
		"token as list": {"application/json", `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":["` + key + `"]}}`, http.StatusBadRequest},
		"version":       {"application/json", `{"apiVersion":"authentication.k8s.io/v2","kind":"TokenReview","spec":{"token":"` + key + `"}}`, http.StatusBadRequest},
		"media":         {"application/yaml", string(good), http.StatusUnsupportedMediaType},
		"too long":      {"application/json", strings.Repeat(" ", 1<<20) + string(good), http.StatusRequestEntityTooLarge},
		"deep":          {"application/json", strings.Repeat("[", 60_000), http.StatusBadRequest},
	} {
		recorder := postBody(world, c.media, []byte(c.body))
		if recorder.Code != c.status {
			t.Errorf("%s: status %d, want %d", name, recorder.Code, c.status)
		}
		if strings.Contains(recorder.Body.String(), key) {
			t.Errorf("%s: the response contains the token", name)
		}
	}
}
