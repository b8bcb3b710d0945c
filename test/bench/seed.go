package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// seedNamespace holds the keys that the verifier is measured with.
const (
	seedNamespace = "default"
	seedRole      = "org.permission.customer.read"
	// seedBatch is the number of keys per transaction. etcd accepts at most 128 operations.
	seedBatch = 100
)

// seeder writes issued keys directly to etcd, because issuing a hundred thousand would take longer than all measurements. Each is a copy of
// a key that the operator has issued.
type seeder struct {
	etcd     harness.Etcd
	template []byte
	pattern  *v1alpha1.ApiKey
	count    int
	// tokens are the tokens of every hundredth key, with the keys' names.
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
			return nil, errors.New("the template key was not issued within a minute")
		}
		if err := c.Get(ctx, client.ObjectKeyFromObject(key), key); err != nil {
			return nil, err
		}
		<-time.After(50 * time.Millisecond)
	}
	s := &seeder{etcd: harness.Etcd(plane.Etcd()), pattern: key}
	s.template, err = s.etcd.Get(ctx, harness.RegistryKey(seedNamespace, "template"))
	return s, err
}

// grow adds keys until there are n in total.
func (s *seeder) grow(ctx context.Context, n int) error {
	for s.count < n {
		all, err := s.fill(ctx, seedNamespace, min(seedBatch, n-s.count))
		if err != nil {
			return err
		}
		s.tokens = append(s.tokens, all[0])
	}
	return nil
}

// fill adds n keys to a namespace, and returns them.
func (s *seeder) fill(ctx context.Context, namespace string, n int) (all []seeded, err error) {
	for len(all) < n {
		values := make(map[string]string, seedBatch)
		for range min(seedBatch, n-len(all)) {
			minted := token.Mint(token.DefaultPrefix)
			name := fmt.Sprintf("seed-%d", s.count)
			values[harness.RegistryKey(namespace, name)] = strings.NewReplacer(
				string(s.pattern.UID), string(newUID()),
				s.pattern.Status.Hash, minted.Digest().String(),
				`"template"`, `"`+name+`"`,
				`"namespace":"`+seedNamespace+`"`, `"namespace":"`+namespace+`"`,
			).Replace(string(s.template))
			all = append(all, seeded{name, minted.Reveal()})
			s.count++
		}
		if err := s.etcd.Put(ctx, values); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func newUID() types.UID { return uuid.NewUUID() }
