package harness

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Etcd is the base URL of an etcd. Tests write objects there directly when issuing so many keys would take too long.
type Etcd string

// RegistryKey returns the etcd key under which an API server stores an ApiKey.
func RegistryKey(namespace, name string) string {
	return "/registry/apikey-operator.io/apikeys/" + namespace + "/" + name
}

// Get returns the value of a key.
func (e Etcd) Get(ctx context.Context, key string) ([]byte, error) {
	answer, err := e.call(ctx, "/v3/kv/range", map[string]string{"key": encode(key)})
	if err != nil {
		return nil, err
	}
	var found struct {
		Kvs []struct {
			Value []byte `json:"value"`
		} `json:"kvs"`
	}
	if err := json.Unmarshal(answer, &found); err != nil || len(found.Kvs) != 1 {
		return nil, fmt.Errorf("%d values of %s in etcd: %w", len(found.Kvs), key, err)
	}
	return found.Kvs[0].Value, nil
}

// Put sets the values of keys in one transaction. etcd accepts at most 128 keys and 1.5 MiB in one.
func (e Etcd) Put(ctx context.Context, values map[string]string) error {
	puts := make([]any, 0, len(values))
	for key, value := range values {
		puts = append(puts, map[string]any{"requestPut": map[string]string{"key": encode(key), "value": encode(value)}})
	}
	_, err := e.call(ctx, "/v3/kv/txn", map[string]any{"success": puts})
	return err
}

// Delete deletes all keys at or after from and before to.
func (e Etcd) Delete(ctx context.Context, from, to string) error {
	_, err := e.call(ctx, "/v3/kv/deleterange", map[string]string{"key": encode(from), "range_end": encode(to)})
	return err
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// call uses etcd's JSON gateway: https://etcd.io/docs/latest/dev-guide/api_grpc_gateway/
func (e Etcd) call(ctx context.Context, path string, document any) ([]byte, error) {
	body, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, string(e)+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd answers %s: %s", response.Status, answer)
	}
	return answer, err
}
