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

// An API server without streaming lists must be read in pages of limited size with a consistent read.
func TestListInPages(t *testing.T) {
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
			t.Errorf("list with the query %s, want limit=%d and no resourceVersion", r.URL.RawQuery, pageSize)
		}
		w.Header().Set("Content-Type", "application/json")
		meta := metav1.ListMeta{ResourceVersion: "7"}
		if strings.HasSuffix(r.URL.Path, "/apiroles") {
			_ = json.NewEncoder(w).Encode(v1alpha1.ApiRoleList{TypeMeta: kind("ApiRoleList"), ListMeta: meta})
			return
		}
		first, _ := strconv.Atoi(query.Get("continue")) // absent for the first page
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
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !x.Loaded() && ctx.Err() == nil {
		<-ticker.C
	}
	if x.Size() != keys {
		t.Errorf("loaded %d keys, want %d", x.Size(), keys)
	}
	cancel()
	<-ended
}

func kind(name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: name}
}
