package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

// beat changes two objects every second, so that the API server is not silent.
func (r *run) beat(ctx context.Context) {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		patch := client.RawPatch(mergePatch, fmt.Appendf(nil, `{"metadata":{"annotations":{"torture":%q}}}`, now()))
		call, cancel := context.WithTimeout(ctx, callTimeout)
		// If this fails, the model sees no beat and expects less of verifiers.
		_ = r.admin.Patch(call, build.ApiKey(plan.Namespaces[0], beatName), patch)
		_ = r.admin.Patch(call, build.ApiRole(beatName), patch)
		cancel()
	}
}

// watchMachine records when the machine did not run this program.
func (r *run) watchMachine(ctx context.Context) {
	for before := now(); pause(ctx, tickInterval); before = now() {
		if late := now(); late.Sub(before) > stallAfter {
			r.note(model.Fault{Kind: "stall", Target: model.Machine, From: before, Back: late, To: late})
		}
	}
}

// cycleRole is the role of the keys of cycle. All policies allow it at all times.
const cycleRole = "shop.read"

// cycle creates one key after the other, and deletes each once all verifiers have accepted it. How long that takes after a fault shows how
// long the system takes to recover.
func (r *run) cycle(ctx context.Context, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(500 * time.Millisecond):
		}
		key := build.ApiKey(plan.Namespaces[i%len(plan.Namespaces)], fmt.Sprintf("cycle-%d", i), build.Roles(cycleRole), build.Never())
		subject := key.Namespace + "/" + key.Name
		r.createKey(ctx, key)
		if r.opens(ctx, stop, r.uidOf(subject)) {
			r.mu.Lock()
			r.cycles = append(r.cycles, now())
			r.mu.Unlock()
		}
		r.delete(ctx, subject)
	}
}

// opens waits until all verifiers have accepted a key.
func (r *run) opens(ctx context.Context, stop <-chan struct{}, uid string) bool {
	waiting := slices.Clone(plan.Verifiers)
	for len(waiting) > 0 {
		select {
		case <-stop:
			return false
		case <-time.After(50 * time.Millisecond):
		}
		k, _ := r.last(uid)
		r.mu.Lock()
		text := r.texts[k.Digest]
		r.mu.Unlock()
		if k.Digest == "" || text == "" {
			continue
		}
		q := question{Answer: model.Answer{
			Protocol: model.ForwardAuth, Credential: model.Token, Digest: k.Digest, Role: cycleRole,
		}, token: text}
		if r.askers[waiting[0]].ask(ctx, q).Result == model.Allowed {
			waiting = waiting[1:]
		}
	}
	return true
}
