package feed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/index"
)

// managedFields are those of a key that kubectl created and the operator issued, as an API server sends them.
const managedFields = `[{"manager":"kubectl-client-side-apply","operation":"Update","apiVersion":"apikey-operator.io/v1alpha1",` +
	`"time":"2026-11-24T12:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},` +
	`"f:kubectl.kubernetes.io/last-applied-configuration":{}}},"f:spec":{".":{},"f:cidrs":{".":{},"v:\"10.0.0.0/8\"":{}},"f:displayName":{},` +
	`"f:expiry":{".":{},"f:after":{}},"f:roles":{".":{},"v:\"org.permission.order.read\"":{},"v:\"org.permission.order.write\"":{}}}}},` +
	`{"manager":"apikey-operator","operation":"Update","apiVersion":"apikey-operator.io/v1alpha1","time":"2026-11-24T12:00:00Z",` +
	`"fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Ready\"}":{".":{},"f:lastTransitionTime":{},` +
	`"f:message":{},"f:observedGeneration":{},"f:reason":{},"f:status":{},"f:type":{}}},"f:expires":{},"f:expiresAt":{},"f:hash":{},` +
	`"f:issuedAt":{},"f:observedGeneration":{},"f:secretName":{},"f:tokenHint":{}}},"subresource":"status"}]`

// issuedKey returns the JSON of an issued key, as an API server sends it.
func issuedKey(t testing.TB, i int) []byte {
	t.Helper()
	at := metav1.NewTime(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC))
	until := metav1.NewTime(at.AddDate(0, 0, 90))
	key := &v1alpha1.ApiKey{
		TypeMeta: kind("ApiKey"),
		ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("team-%d", i%100), Name: fmt.Sprintf("key-%d", i), UID: "6d2c1b2e-4f0a-4c57-9c7e-3f4bb1a6a6a1", ResourceVersion: "42",
			Generation: 1, CreationTimestamp: at,
			Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": `{"apiVersion":"apikey-operator.io/v1alpha1","kind":"ApiKey","metadata":{"annotations":{},"name":"orders"},"spec":{"cidrs":["10.0.0.0/8"],"expiry":{"after":"90d"},"roles":["org.permission.order.read","org.permission.order.write"]}}`},
		},
		Spec: v1alpha1.ApiKeySpec{
			DisplayName: "Order sync of the web shop", Roles: []string{"org.permission.order.read", "org.permission.order.write"},
			CIDRs: []string{"10.0.0.0/8", "192.168.0.0/16"}, Expiry: v1alpha1.ApiKeyExpiry{After: "90d"},
		},
		Status: v1alpha1.ApiKeyStatus{
			ObservedGeneration: 1, Hash: fmt.Sprintf("sha256:%064x", i), TokenHint: "ak_Xy12", IssuedAt: &at, ExpiresAt: &until, Expires: "2027-02-22T12:00:00Z",
			SecretName: "orders", Conditions: []metav1.Condition{{
				Type: "Ready", Status: "True", Reason: "Issued", Message: `the token is in Secret "orders" under the data key "token", and stored nowhere else`,
				ObservedGeneration: 1, LastTransitionTime: at,
			}},
		},
	}
	text, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(text, []byte(`"metadata":{`), []byte(`"metadata":{"managedFields":`+managedFields+`,`), 1)
}

// BenchmarkLoad measures the first load of 10,000 keys by a streaming list, in processor time and bytes for each key. The server sends what it has
// prepared, so nearly all of the time is that of the loader.
func BenchmarkLoad(b *testing.B) {
	const keys = 10_000
	var stream bytes.Buffer
	for i := range keys {
		fmt.Fprintf(&stream, `{"type":"ADDED","object":%s}`+"\n", issuedKey(b, i))
	}
	end := func(name string) string {
		return `{"type":"BOOKMARK","object":{"kind":"` + name + `","apiVersion":"apikey-operator.io/v1alpha1","metadata":{"resourceVersion":"43",` +
			`"creationTimestamp":null,"annotations":{"k8s.io/initial-events-end":"true"}},"spec":{},"status":{}}}` + "\n"
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/apiroles") {
			_, _ = w.Write([]byte(end("ApiRole")))
		} else {
			_, _ = w.Write(stream.Bytes())
			_, _ = w.Write([]byte(end("ApiKey")))
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	b.SetBytes(int64(stream.Len()))
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		x := index.New(time.Now(), index.Options{})
		loader, err := NewLoader(&rest.Config{Host: server.URL}, x, Options{})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan struct{})
		go func() {
			loader.Run(ctx)
			close(ended)
		}()
		ticker := time.NewTicker(time.Millisecond)
		for !x.Loaded() {
			<-ticker.C
		}
		ticker.Stop()
		if x.Size() != keys {
			b.Fatalf("loaded %d keys", x.Size())
		}
		cancel()
		<-ended
	}
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N)/keys, "cpu-µs/key")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
