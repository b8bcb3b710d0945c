package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/index"
)

// An API server that does not stream what there is, as older ones do not, is asked for pages, each of which
// is a consistent read and of a size that can be held.
func TestAnAPIServerThatDoesNotStreamIsReadInPages(t *testing.T) {
	const keys = 2*pageSize + 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		switch {
		case query.Get("sendInitialEvents") != "":
			http.Error(w, "unknown", http.StatusUnprocessableEntity)
			return
		case query.Get("watch") != "":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		case query.Get("resourceVersion") != "" || query.Get("limit") != strconv.Itoa(pageSize):
			t.Errorf("listed by %s", r.URL.RawQuery)
		}
		w.Header().Set("Content-Type", "application/json")
		meta := metav1.ListMeta{ResourceVersion: "7"}
		if strings.HasSuffix(r.URL.Path, "/apiroles") {
			_ = json.NewEncoder(w).Encode(v1alpha1.ApiRoleList{TypeMeta: kind("ApiRoleList"), ListMeta: meta})
			return
		}
		first, _ := strconv.Atoi(query.Get("continue")) // absent at first
		page := v1alpha1.ApiKeyList{TypeMeta: kind("ApiKeyList"), ListMeta: meta}
		for i := first; i < min(first+pageSize, keys); i++ {
			key := whole()
			key.Name, key.DeletionTimestamp, key.Status.Hash = fmt.Sprintf("key-%d", i), nil, fmt.Sprintf("sha256:%064x", i)
			page.Items = append(page.Items, *key)
		}
		if first+pageSize < keys {
			page.Continue = strconv.Itoa(first + pageSize)
		}
		_ = json.NewEncoder(w).Encode(page)
	}))
	defer server.Close()
	x := index.New(time.Now(), index.Options{})
	loader, err := NewLoader(&rest.Config{Host: server.URL}, x, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan struct{})
	go func() {
		loader.Run(ctx)
		close(ended)
	}()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !x.Loaded() && ctx.Err() == nil {
		<-look.C
	}
	if x.Size() != keys {
		t.Errorf("%d of %d keys", x.Size(), keys)
	}
	cancel()
	<-ended
}

func kind(name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: name}
}
