package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

// settleBound is how long everything may take to settle after the last fault. Keys with a Secret conflict or a wrong clock are reconciled
// within a minute (docs/lifecycle.md). Keys that met a full quota are tried again sooner. Another leader follows within the lease of a
// dead one. Watches, one after the other, take promises.Watch each.
var settleBound = time.Minute + leaseDuration + retryPeriod + 4*promises.Watch

// settle waits until the state is right or settleBound has passed, and records the state. Then it tries every token of the run at every
// verifier.
func (r *run) settle(ctx context.Context) error {
	settled := model.Settled{At: now()}
	for {
		var err error
		if settled.Secrets, err = r.listSecrets(ctx); err != nil {
			return err
		}
		settled.Until = now()
		if !r.unsettled(settled) || now().After(settled.At.Add(settleBound)) {
			break
		}
		if !pause(ctx, 500*time.Millisecond) {
			return ctx.Err()
		}
	}
	// Afterwards, this program has seen everything that was written.
	pause(ctx, promises.Watch)
	r.mu.Lock()
	digests := slices.Clone(r.digests)
	texts := maps.Clone(r.texts)
	r.mu.Unlock()
	for _, verifier := range plan.Verifiers {
		for _, digest := range digests {
			for _, protocol := range []string{model.ForwardAuth, model.ExtAuthz} {
				r.askers[verifier].ask(ctx, question{
					Answer: r.fitting(model.Answer{Protocol: protocol, Credential: model.Token, Digest: digest}),
					token:  texts[digest],
				})
			}
		}
	}
	r.note(settled)
	return nil
}

// fitting is a request that the key of its digest passes if it lives: for a role of the key, and from an address that it may be used from.
func (r *run) fitting(a model.Answer) model.Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.Role, a.Address = plan.Roles[0], netip.MustParseAddr(plan.Inside)
	for _, k := range r.seen {
		if k.Digest != a.Digest {
			continue
		}
		a.Role = k.Roles[0]
		if len(k.Networks) > 0 {
			a.Address = k.Networks[0].Addr().Next()
		}
	}
	return a
}

// unsettled reports whether the current state would be a violation at the end.
func (r *run) unsettled(settled model.Settled) bool {
	r.mu.Lock()
	part := make(model.History, 0, len(r.seen))
	for _, event := range r.history {
		if o, ok := event.(model.Operation); ok && o.Kind == plan.Edit {
			part = append(part, o)
		}
	}
	for _, k := range r.seen {
		part = append(part, k)
	}
	r.mu.Unlock()
	return slices.ContainsFunc(model.Judge(append(part, settled), promises), func(v model.Violation) bool {
		return v.Rule == model.RuleLeft || v.Rule == model.RuleLost && v.Who != "verifiers"
	})
}

func (r *run) listSecrets(ctx context.Context) ([]model.Secret, error) {
	list := &corev1.SecretList{}
	if err := r.until(ctx, func(ctx context.Context) error {
		return r.admin.List(ctx, list, client.MatchingFields{"type": v1alpha1.SecretType})
	}); err != nil {
		return nil, err
	}
	secrets := make([]model.Secret, len(list.Items))
	for i := range list.Items {
		secrets[i], _ = secretOf(&list.Items[i])
	}
	return secrets, nil
}

// findLeaks searches the logs of operators and verifiers, the statuses and the cluster's events for all tokens.
func (r *run) findLeaks(ctx context.Context) error {
	r.mu.Lock()
	tokens := slices.Collect(maps.Values(r.texts))
	r.mu.Unlock()
	found := func(where string, text []byte) {
		if n := harness.Traces(text, tokens...); n > 0 {
			r.note(model.Finding{At: now(), Text: fmt.Sprintf("%d traces of tokens in %s", n, where)})
		}
	}
	list := &corev1.EventList{}
	if err := r.until(ctx, func(ctx context.Context) error { return r.admin.List(ctx, list) }); err != nil {
		return err
	}
	told, err := json.Marshal(list)
	if err != nil {
		return err
	}
	found("events", told)
	logs, err := filepath.Glob(filepath.Join(r.folder, "*.log"))
	if err != nil {
		return err
	}
	if len(logs) != len(plan.Operators)+len(plan.Verifiers)+1 {
		return fmt.Errorf("the logs of operators and verifiers, and the statuses, should be here: %v", logs)
	}
	for _, path := range logs {
		if err := inPieces(path, func(piece []byte) { found(filepath.Base(path), piece) }); err != nil {
			return err
		}
	}
	return nil
}

// inPieces reads a file in pieces that overlap by more than any form of a token.
func inPieces(path string, see func([]byte)) error {
	const size, overlap = 1 << 20, 256
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	buffer := make([]byte, 0, size+overlap)
	for {
		n, err := io.ReadFull(file, buffer[len(buffer):size+overlap])
		buffer = buffer[:len(buffer)+n]
		see(buffer)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		buffer = append(buffer[:0], bytes.Clone(buffer[len(buffer)-overlap:])...)
	}
}
