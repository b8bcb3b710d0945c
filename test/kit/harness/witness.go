package harness

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// Witness records everything that the operator outputs while tests run (logs, events, statuses, metrics) and every token in a Secret, so
// that a test can search the output for the tokens. It also checks every status against the contract of the API.
type Witness struct {
	mu         sync.Mutex
	output     bytes.Buffer
	tokens     map[string]bool
	last       map[types.UID]v1alpha1.ApiKeyStatus // as seen last
	statuses   int
	violations []string
	registries registries
	stop       context.CancelFunc
	// The resourceVersions at which a digest was first seen in a status, and at which a Secret with its token was created.
	committed, delivered map[string]uint64
}

type registries struct {
	mu  sync.Mutex
	all []*prometheus.Registry
}

func (r *registries) add(registry *prometheus.Registry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, registry)
}

// NewWitness starts to watch all ApiKeys and all token Secrets. admin must connect as an administrator.
func NewWitness(ctx context.Context, admin *rest.Config) (*Witness, error) {
	w := &Witness{
		tokens: map[string]bool{}, last: map[types.UID]v1alpha1.ApiKeyStatus{},
		committed: map[string]uint64{}, delivered: map[string]uint64{},
	}
	ctx, w.stop = context.WithCancel(ctx)
	for _, watched := range []struct {
		list    client.ObjectList
		options []client.ListOption
	}{
		{&corev1.SecretList{}, []client.ListOption{client.MatchingFields{"type": v1alpha1.SecretType}}},
		{&v1alpha1.ApiKeyList{}, nil},
	} {
		start := func() (watch.Interface, error) { return Watch(ctx, admin, watched.list, watched.options...) }
		events, err := start()
		if err != nil {
			w.stop()
			return nil, err
		}
		go w.follow(ctx, events, watched.list, start)
	}
	return w, nil
}

// follow sees all events until ctx ends. A watch that ends before, as when its CRD changes, is started again, and what its list has is seen
// as if it were new.
func (w *Witness) follow(ctx context.Context, events watch.Interface, list client.ObjectList, start func() (watch.Interface, error)) {
	for {
		for event := range events.ResultChan() {
			w.see(event, false)
		}
		err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(context.Context) (bool, error) {
			var err error
			events, err = start()
			return err == nil, nil
		})
		if err != nil {
			return // ctx has ended
		}
		_ = meta.EachListItem(list, func(object runtime.Object) error {
			w.see(watch.Event{Type: watch.Modified, Object: object}, true)
			return nil
		})
	}
}

// Stop ends the watches.
func (w *Witness) Stop() { w.stop() }

// see takes note of an event. listed says that it stands for what was missed while there was no watch, so that a digest in it may have been
// committed long before.
func (w *Witness) see(event watch.Event, listed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch object := event.Object.(type) {
	case *corev1.Secret:
		for _, value := range object.Data {
			w.tokens[string(value)] = true
			// An update of a Secret that holds the token already, as of its labels, comes later than the first.
			if found, err := token.Parse(string(value)); err == nil && event.Type != watch.Deleted {
				w.first(w.delivered, found.Digest().String(), object)
			}
		}
	case *v1alpha1.ApiKey:
		if object.Status.ObservedGeneration <= 0 { // no controller has seen it yet
			return
		}
		w.statuses++
		if object.Status.Hash != "" {
			w.commit(object.Status.Hash, object, listed)
		}
		if pending := object.PendingToken(); pending != nil {
			w.commit(pending.Hash, object, listed)
		}
		// An edit of spec.suspend raises the generation, and the operator answers with the next status.
		edited := equality.Semantic.DeepEqual(w.last[object.UID], object.Status)
		w.last[object.UID] = object.Status
		if object.DeletionTimestamp.IsZero() && !edited { // deletion raises the generation, and a dying key is left alone
			w.violations = append(w.violations, Breaches(object)...)
		}
		text, err := json.Marshal(object)
		if err != nil {
			w.violations = append(w.violations, err.Error())
		}
		w.output.Write(append(text, '\n'))
	}
}

// commit records the resourceVersion at which a digest is first seen in a status, or 0 if an earlier status may have had it.
func (w *Witness) commit(digest string, object client.Object, listed bool) {
	if _, known := w.committed[digest]; !known && listed {
		w.committed[digest] = 0
		return
	}
	w.first(w.committed, digest, object)
}

// first records the resourceVersion at which a digest is first seen. Resource versions of all kinds are comparable: there is one etcd.
func (w *Witness) first(seen map[string]uint64, digest string, object client.Object) {
	if _, known := seen[digest]; known {
		return
	}
	version, err := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	if err != nil {
		w.violations = append(w.violations, err.Error())
	}
	seen[digest] = version
}

// Breaches are what is wrong with a status by the contract, of a key that is not being deleted.
func Breaches(key *v1alpha1.ApiKey) []string {
	var found []string
	wrong := func(format string, args ...any) {
		found = append(found, fmt.Sprintf("%s/%s: ", key.Namespace, key.Name)+fmt.Sprintf(format, args...))
	}
	status := key.Status
	if status.ObservedGeneration != key.Generation {
		wrong("observedGeneration is %d at generation %d", status.ObservedGeneration, key.Generation)
	}
	ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		wrong("no Ready condition")
		return found
	}
	if !slices.Contains(v1alpha1.ReadyReasons(), v1alpha1.Reason(ready.Reason)) {
		wrong("unknown reason %q", ready.Reason)
	}
	if issued := slices.Contains([]v1alpha1.Reason{v1alpha1.ReasonIssued, v1alpha1.ReasonSuspended}, v1alpha1.Reason(ready.Reason)); issued != (ready.Status == metav1.ConditionTrue) {
		wrong("Ready is %s with reason %s", ready.Status, ready.Reason)
	} else if issued && (status.IssuedAt == nil || status.Hash == "" || status.SecretName == "" || status.TokenHint == "") {
		wrong("issued without issuedAt, hash, secretName or tokenHint")
	}
	if ready.Reason == string(v1alpha1.ReasonExpired) && status.ExpiresAt == nil {
		wrong("expired without expiresAt")
	}
	checkPending(key, ready, wrong)
	if status.Hash != "" && status.ExpiresAt == nil && key.Spec.Expiry.Never == nil {
		wrong("a digest without expiresAt")
	}
	return found
}

// checkPending checks the status of pending keys, and that only an issued key is out of policy.
func checkPending(key *v1alpha1.ApiKey, ready *metav1.Condition, wrong func(format string, args ...any)) {
	status := key.Status
	if ready.Reason == string(v1alpha1.ReasonDeliveryRefused) && (status.Hash != "" || status.TokenHint != "" || status.IssuedAt != nil) {
		wrong("delivery was refused, but the key has a digest")
	}
	if reason := v1alpha1.Reason(ready.Reason); reason == v1alpha1.ReasonUnknownRole || reason == v1alpha1.ReasonNotAllowed {
		if status.Hash != "" || status.TokenHint != "" || status.IssuedAt != nil {
			wrong("pending with reason %s, but the key has a digest", reason)
		}
		stalled := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionStalled)
		if stalled == nil || stalled.Status != metav1.ConditionTrue || stalled.Reason != ready.Reason {
			wrong("pending with reason %s, but not Stalled with the same reason", reason)
		}
	}
	if meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionOutOfPolicy) != nil && ready.Status != metav1.ConditionTrue {
		wrong("out of policy with reason %s", ready.Reason)
	}
}

// Write records output, such as a log.
func (w *Witness) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.output.Write(p)
}

// Recorder returns a recorder that records events as output.
func (w *Witness) Recorder() events.EventRecorder { return recorder{w} }

type recorder struct{ w *Witness }

func (r recorder) Eventf(_, _ runtime.Object, eventType, reason, action, note string, args ...any) {
	_, _ = fmt.Fprintf(r.w, "event %s %s %s %s\n", eventType, reason, action, fmt.Sprintf(note, args...))
}

// Statuses returns how many statuses the witness has checked.
func (w *Witness) Statuses() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.statuses
}

// Violations returns every breach of the contract so far.
func (w *Witness) Violations() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := slices.Clone(w.violations)
	for digest, at := range w.delivered {
		if committed, ok := w.committed[digest]; ok && committed >= at {
			found = append(found, digest+" was committed after its Secret was created")
		}
	}
	return found
}

// Tokens returns how many different values the witness has seen in token Secrets.
func (w *Witness) Tokens() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tokens)
}

// Leaks searches all output, the metrics and the cluster's events for every token: as plain text, in base64 at each of its three offsets, and
// in hex. It returns where it found tokens and how many, never the tokens.
func (w *Witness) Leaks(ctx context.Context, c client.Client) ([]string, error) {
	var metrics bytes.Buffer
	w.registries.mu.Lock()
	for _, registry := range w.registries.all {
		families, err := registry.Gather()
		if err != nil {
			w.registries.mu.Unlock()
			return nil, err
		}
		for _, family := range families {
			metrics.WriteString(family.String() + "\n")
		}
	}
	w.registries.mu.Unlock()
	list := &corev1.EventList{}
	if err := c.List(ctx, list); err != nil {
		return nil, err
	}
	recorded, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	needles := needles(w.tokens)
	var found []string
	for name, text := range map[string][]byte{"logs and statuses": w.output.Bytes(), "metrics": metrics.Bytes(), "events": recorded} {
		if n := count(text, needles); n > 0 {
			found = append(found, fmt.Sprintf("found %d pieces of tokens in %s", n, name))
		}
	}
	return found, nil
}

// needleLength is the length of the piece of a token that the witness searches for. The piece starts after the token hint, which is public.
const needleLength = 24

func needles(tokens map[string]bool) map[string]bool {
	set := map[string]bool{}
	for text := range tokens {
		if _, err := token.Parse(text); err != nil {
			continue // a test wrote it
		}
		secret := []byte(text)[12:]
		set[string(secret[:needleLength])] = true
		set[hex.EncodeToString(secret)[:needleLength]] = true
		for offset := range 3 {
			// Drop 0 to 2 bytes: one of the pieces then starts at a three-byte group, at whatever offset the token was encoded.
			set[base64.StdEncoding.EncodeToString(secret[offset:])[:needleLength]] = true
		}
	}
	return set
}

// Traces counts what can be found of tokens in a text, in any of their forms.
func Traces(text []byte, tokens ...string) int {
	set := map[string]bool{}
	for _, token := range tokens {
		set[token] = true
	}
	return count(text, needles(set))
}

func count(text []byte, needles map[string]bool) int {
	n := 0
	for i := 0; i+needleLength <= len(text); i++ {
		if needles[string(text[i:i+needleLength])] {
			n++
		}
	}
	return n
}
