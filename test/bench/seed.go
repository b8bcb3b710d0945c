package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
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
	client   client.Client
	template []byte
	pattern  *v1alpha1.ApiKey
	count    int
	taken    int
	// tokens are the tokens of every tenth key, with the keys' names.
	tokens []seeded
}

type seeded struct {
	name, token string
}

// newSeeder issues the key that others are copies of. It has two roles, and those that are given.
func newSeeder(ctx context.Context, plane *controlplane.ControlPlane, roles ...string) (_ *seeder, err error) {
	operator, err := plane.StartOperator(ctx, io.Discard)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, operator.Stop()) }()
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		return nil, err
	}
	key := build.ApiKey(seedNamespace, "template", build.Roles(append(roles, seedRole, "org.permission.message.create")...), build.CIDRs("127.0.0.0/8", "2001:db8::/32"))
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
	s := &seeder{etcd: harness.Etcd(plane.Etcd()), client: c, pattern: key}
	s.template, err = s.etcd.Get(ctx, harness.RegistryKey(seedNamespace, "template"))
	return s, err
}

// seededPlane starts a control plane with a number of issued keys, which have two roles and those that are given.
func seededPlane(ctx context.Context, keys int, roles ...string) (*controlplane.ControlPlane, *seeder, error) {
	plane, err := install(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := newSeeder(ctx, plane, roles...)
	if err == nil {
		err = s.grow(ctx, keys)
	}
	if err != nil {
		return nil, nil, errors.Join(err, plane.Stop())
	}
	return plane, s, nil
}

// grow adds keys until there are n in total, apart from those that were taken.
func (s *seeder) grow(ctx context.Context, n int) error {
	for s.count-s.taken < n {
		all, err := s.fill(ctx, seedNamespace, min(seedBatch, n-(s.count-s.taken)))
		if err != nil {
			return err
		}
		for i := 0; i < len(all); i += 10 {
			s.tokens = append(s.tokens, all[i])
		}
	}
	return s.waitCached(ctx)
}

// waitCached waits until the API server's watch cache has what was written. Nobody may watch before: keys of one transaction have the
// same resource version, so a watch that begins between two of them never gets the second.
func (s *seeder) waitCached(ctx context.Context) error {
	list := func(keys *metav1.PartialObjectMetadataList, options ...client.ListOption) error {
		keys.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiKeyList"))
		return s.client.List(ctx, keys, options...)
	}
	// A list of the newest version is answered from the cache, once the cache has that version (KEP-2340). This one is empty.
	if err := list(&metav1.PartialObjectMetadataList{}, client.InNamespace(metav1.NamespacePublic)); err != nil {
		return err
	}
	// The rest of the last transaction may still be missing.
	for {
		cached := &metav1.PartialObjectMetadataList{}
		if err := list(cached, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}); err != nil {
			return err
		}
		if len(cached.Items) > s.count-s.taken { // the template is one of them
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
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

// take removes some of the tokens, so that their keys can be deleted.
func (s *seeder) take(n int) []seeded {
	taken := s.tokens[:n]
	s.tokens = s.tokens[n:]
	s.taken += n
	return taken
}

// readPattern returns what a replay needs, and the first of its keys with their tokens.
func readPattern(ctx context.Context, plane *controlplane.ControlPlane) (replayPattern, []seeded, error) {
	clients, err := kubernetes.NewForConfig(plane.Admin)
	if err != nil {
		return replayPattern{}, nil, err
	}
	text, err := clients.RESTClient().Get().AbsPath("/apis", v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.Version,
		"namespaces", seedNamespace, "apikeys", "template").DoRaw(ctx)
	if err != nil {
		return replayPattern{}, nil, err
	}
	key := &v1alpha1.ApiKey{}
	if err := json.Unmarshal(text, key); err != nil {
		return replayPattern{}, nil, err
	}
	pattern := replayPattern{Name: key.Name, UID: string(key.UID), Digest: key.Status.Hash, Key: text}
	var keys []seeded
	for i := range growthDeletions {
		minted := token.Mint(token.DefaultPrefix)
		pattern.Digests = append(pattern.Digests, minted.Digest().String())
		keys = append(keys, seeded{fmt.Sprintf("seed-%d", i), minted.Reveal()})
	}
	return pattern, keys, nil
}

func newUID() types.UID { return uuid.NewUUID() }
