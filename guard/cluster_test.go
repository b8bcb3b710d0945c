package guard_test

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/guard"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// issuedToken is the token of partners/acme, the one ApiKey that the cluster of the examples has.
var (
	minted      = token.Mint(token.DefaultPrefix)
	issuedToken = minted.Reveal()
)

// startCluster starts an API server for the examples. It serves the ApiKey partners/acme, which carries the role
// org.permission.order.read.
func startCluster() (config *rest.Config, stop func()) { return serveKey(acme()) }

// acme returns the ApiKey partners/acme.
func acme() v1alpha1.ApiKey {
	issuedAt := metav1.NewTime(time.Unix(1_800_000_000, 0))
	return v1alpha1.ApiKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "partners", Name: "acme", UID: "6d2c1b2e", CreationTimestamp: issuedAt},
		Spec: v1alpha1.ApiKeySpec{
			Roles:  []string{"org.permission.order.read"},
			Expiry: v1alpha1.ApiKeyExpiry{Never: ptr.To(true)},
		},
		Status: v1alpha1.ApiKeyStatus{Hash: minted.Digest().String(), IssuedAt: &issuedAt},
	}
}

// serveKey starts an API server that serves one ApiKey.
func serveKey(key v1alpha1.ApiKey) (config *rest.Config, stop func()) {
	meta := metav1.ListMeta{ResourceVersion: "1"}
	lists := map[string]any{
		"apikeys":  v1alpha1.ApiKeyList{TypeMeta: typeMeta("ApiKeyList"), ListMeta: meta, Items: []v1alpha1.ApiKey{key}},
		"apiroles": v1alpha1.ApiRoleList{TypeMeta: typeMeta("ApiRoleList"), ListMeta: meta},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch query := r.URL.Query(); {
		case query.Has("sendInitialEvents"): // not supported: the client falls back to a list
			w.WriteHeader(http.StatusUnprocessableEntity)
		case query.Has("watch"):
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(lists[path.Base(r.URL.Path)])
		}
	}))
	return &rest.Config{Host: server.URL}, func() {
		server.CloseClientConnections()
		server.Close()
	}
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind}
}

// waitUntilReady returns once the guard has loaded the API keys. A service leaves that to its readiness probe.
func waitUntilReady(keys *guard.Guard) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !keys.Ready() {
		<-ticker.C
	}
}

// get returns the status and the body of the answer to a GET with a token.
func get(url, token string) string {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	if len(body) == 0 {
		return response.Status
	}
	return response.Status + ": " + string(body)
}
