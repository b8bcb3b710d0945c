package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/hack/controlplane"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/build"
	"github.com/apikey-operator/apikey-operator/test/harness"
)

// seedNamespace holds the keys that the verifier is measured with.
const (
	seedNamespace = "default"
	seedRole      = "org.permission.customer.read"
	// etcd takes 128 operations at once.
	seedBatch = 100
)

// seeder puts issued keys into etcd, past the API server: issuing a hundred thousand would take longer than all the rest. Each is a copy of
// one that the operator has issued.
type seeder struct {
	etcd     string
	template []byte
	pattern  *v1alpha1.ApiKey
	count    int
	// tokens are those of some of the keys, with their names.
	tokens []seeded
}

type seeded struct {
	name, token string
}

func newSeeder(ctx context.Context, plane *controlplane.ControlPlane) (_ *seeder, err error) {
	operator, err := plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return nil, err
	}
	key := build.ApiKey(seedNamespace, "template", build.Roles(seedRole, "org.permission.message.create"), build.CIDRs("127.0.0.0/8", "2001:db8::/32"))
	if err := c.Create(ctx, key); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(time.Minute)
	for key.Status.IssuedAt == nil {
		if time.Now().After(deadline) {
			return nil, errors.New("the template was not issued within a minute")
		}
		if err := c.Get(ctx, client.ObjectKeyFromObject(key), key); err != nil {
			return nil, err
		}
		<-time.After(50 * time.Millisecond)
	}
	s := &seeder{etcd: plane.Etcd(), pattern: key}
	s.template, err = s.get(ctx, registryKey("template"))
	return s, err
}

func registryKey(name string) string {
	return "/registry/apikey-operator.io/apikeys/" + seedNamespace + "/" + name
}

// grow adds keys until there are n.
func (s *seeder) grow(ctx context.Context, n int) error {
	for s.count < n {
		puts := make([]any, 0, seedBatch)
		for range min(seedBatch, n-s.count) {
			minted := token.Mint(token.DefaultPrefix)
			name := fmt.Sprintf("seed-%d", s.count)
			document := strings.NewReplacer(
				string(s.pattern.UID), string(newUID()),
				s.pattern.Status.Hash, minted.Digest().String(),
				`"template"`, `"`+name+`"`,
			).Replace(string(s.template))
			puts = append(puts, map[string]any{"requestPut": map[string]string{
				"key": encode(registryKey(name)), "value": encode(document),
			}})
			if s.count%100 == 0 {
				s.tokens = append(s.tokens, seeded{name, minted.Reveal()})
			}
			s.count++
		}
		if _, err := s.call(ctx, "/v3/kv/txn", map[string]any{"success": puts}); err != nil {
			return err
		}
	}
	return nil
}

func newUID() types.UID { return uuid.NewUUID() }

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func (s *seeder) get(ctx context.Context, key string) ([]byte, error) {
	answer, err := s.call(ctx, "/v3/kv/range", map[string]string{"key": encode(key)})
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

// call uses etcd's JSON gateway: https://etcd.io/docs/latest/dev-guide/api_grpc_gateway/
func (s *seeder) call(ctx context.Context, path string, document any) ([]byte, error) {
	body, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.etcd+path, bytes.NewReader(body))
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
